package resolve

import (
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestArrangeKeepsPriorities: whatever is drawn, all servers are there once, by
// priority.
func TestArrangeKeepsPriorities(t *testing.T) {
	t.Parallel()
	source := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		servers := make([]server, source.IntN(12))
		for i := range servers {
			servers[i] = server{uint16(source.IntN(3)), uint16(source.IntN(4) * source.IntN(30_000)), uint16(i), "h."}
		}
		before := slices.Clone(servers)
		got := arrange(servers, source.IntN)
		if !slices.Equal(servers, before) {
			t.Fatal("it changed what others read")
		}
		if !slices.IsSortedFunc(got, func(a, b server) int { return int(a.priority) - int(b.priority) }) {
			t.Fatalf("%v", got)
		}
		seen := map[uint16]bool{}
		for _, s := range got {
			seen[s.port] = true
		}
		if len(got) != len(servers) || len(seen) != len(servers) {
			t.Fatalf("%v of %v", got, servers)
		}
	}
}

// TestArrangeByWeight: of one priority the weight is the chance to be first, and
// to be the next of those that are left (RFC 2782).
func TestArrangeByWeight(t *testing.T) {
	t.Parallel()
	servers := []server{{1, 0, 0, "h."}, {1, 60, 1, "h."}, {1, 30, 2, "h."}, {1, 10, 3, "h."}}
	source := rand.New(rand.NewPCG(3, 4))
	const n = 20_000
	var first, second [4]int
	for range n {
		got := arrange(servers, source.IntN)
		first[got[0].port]++
		if got[0].port == 1 {
			second[got[1].port]++
		}
	}
	near := func(what string, got int, want, of float64) {
		if share := float64(got) / of; share < want-0.02 || share > want+0.02 {
			t.Errorf("%s: %.3f, want %.3f", what, share, want)
		}
	}
	near("weight 0", first[0], 1/101.0, n)
	near("weight 60", first[1], 60/101.0, n)
	near("weight 30", first[2], 30/101.0, n)
	near("weight 10", first[3], 10/101.0, n)
	near("30 behind 60", second[2], 30/41.0, float64(first[1]))
	near("10 behind 60", second[3], 10/41.0, float64(first[1]))
	for range 100 { // without any weight all are there
		if got := arrange([]server{{1, 0, 1, "h."}, {1, 0, 2, "h."}}, source.IntN); len(got) != 2 {
			t.Fatal(got)
		}
	}
}

func TestServicesIn(t *testing.T) {
	t.Parallel()
	pointers := []pointer{
		{20, 1, "udp", "d."}, {10, 5, "tcp", "c."}, {10, 1, "tls", "a."}, {10, 1, "tcp", "b."},
	}
	got := servicesIn(pointers, false)
	want := []serviceName{{"tls", "a."}, {"tcp", "b."}, {"tcp", "c."}, {"udp", "d."}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := servicesIn(pointers, true); !slices.Equal(got, want[:1]) {
		t.Errorf("sips: %v", got)
	}
}

// TestRecordsAreBounded: so is what is kept of one answer.
func TestRecordsAreBounded(t *testing.T) {
	t.Parallel()
	var a answer
	for i := range 1000 {
		a.read(&dns.A{A: net.IPv4(192, 0, byte(i>>8), byte(i))})
		a.read(&dns.SRV{Port: 5060, Target: "h.example."})
		a.read(&dns.NAPTR{Flags: "s", Service: "SIP+D2U", Replacement: "_sip._udp.h.example."})
	}
	if len(a.addresses) != maxAddresses || len(a.servers) != maxServices || len(a.pointers) != maxPointers {
		t.Errorf("%d addresses, %d servers, %d pointers", len(a.addresses), len(a.servers), len(a.pointers))
	}
}

func FuzzHostName(f *testing.F) {
	for _, seed := range []string{"example.com", "EXAMPLE.com.", "a..b", "-a.b", "a_b", "1.2.3.4", "xn--bcher-kva.example", "localhost", ".", "", "a\x00b", "ä.example", strings.Repeat("a.", 130)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, ok := hostName(s)
		if !ok {
			return
		}
		if again, ok := hostName(name); !ok || again != name {
			t.Errorf("%q becomes %q, and that %q", s, name, again)
		}
		if _, labels := dns.IsDomainName(name); !labels || !dns.IsFqdn(name) || strings.ContainsAny(name, "_ \\\"@;") {
			t.Errorf("%q becomes %q", s, name)
		}
		if service, ok := serviceHost(s); !ok || service != name {
			t.Errorf("%q is a host, and as a service %q", s, service)
		}
	})
}

// FuzzGather reads whatever a name server may say: it ends, and is bounded.
func FuzzGather(f *testing.F) {
	seed := new(dns.Msg).SetQuestion("a.example.", dns.TypeSRV)
	for _, text := range []string{
		"a.example. 60 IN CNAME b.example.", "b.example. 4294967295 IN SRV 1 2 3 c.example.", "b.example. 1 IN SRV 1 2 3 .",
		"b.example. 60 IN A 192.0.2.1", "b.example. 60 IN NAPTR 1 1 \"s\" \"SIP+D2U\" \"\" _sip._udp.b.example.",
	} {
		record, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		seed.Answer = append(seed.Answer, record)
	}
	packet, err := seed.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Fuzz(func(t *testing.T, packet []byte) {
		var m dns.Msg
		if m.Unpack(packet) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeNAPTR} {
			a := answer{ttl: maxTTL}
			next, err := a.gather(&m, question{"a.example.", kind})
			if a.ttl < 0 || a.ttl > maxTTL || len(a.addresses) > maxAddresses || len(a.servers) > maxServices || len(a.pointers) > maxPointers {
				t.Errorf("%+v", a)
			}
			if _, ok := serviceHost(next); next != "" && (!ok || err != nil) {
				t.Errorf("next is %q, %v", next, err)
			}
		}
	})
}
