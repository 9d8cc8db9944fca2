package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

func parseURI(t *testing.T, text string) sip.Uri {
	t.Helper()
	u, err := wire.ParseURI(text)
	if err != nil {
		t.Fatal(text, err)
	}
	return u
}

// hopsText is short: "udp 192.0.2.1:5060, tls 192.0.2.2:5061 (example.com)".
func hopsText(hops []wire.Target) string {
	var texts []string
	for _, h := range hops {
		text := h.Network + " " + h.Address.String()
		if h.ServerName != "" {
			text += " (" + h.ServerName + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// zone has a domain for each way of RFC 3263.
var zone = []string{
	`napt.example. 60 IN NAPTR 20 1 "s" "SIP+D2U" "" _sip._udp.napt.example.`,
	`napt.example. 60 IN NAPTR 10 2 "S" "sip+d2t" "" _sip._tcp.napt.example.`,
	`napt.example. 60 IN NAPTR 10 1 "s" "SIPS+D2T" "" _sips._tcp.napt.example.`,
	`napt.example. 60 IN NAPTR 1 1 "u" "E2U+sip" "!^.*$!sip:x@y.example!" .`,
	`napt.example. 60 IN NAPTR 1 1 "s" "SIP+D2S" "" _sip._sctp.napt.example.`,
	`_sip._udp.napt.example. 60 IN SRV 1 0 5070 one.example.`,
	`_sip._tcp.napt.example. 60 IN SRV 1 0 5071 one.example.`,
	`_sips._tcp.napt.example. 60 IN SRV 1 0 5072 one.example.`,

	`serv.example. 60 IN A 192.0.2.99`, // isn't where it is served
	`_sip._udp.serv.example. 60 IN SRV 20 0 5060 two.example.`,
	`_sip._udp.serv.example. 60 IN SRV 10 0 5080 one.example.`,
	`_sip._tcp.serv.example. 60 IN SRV 10 0 5080 one.example.`,
	`_sips._tcp.serv.example. 60 IN SRV 10 0 5081 one.example.`,

	`bare.example. 60 IN A 192.0.2.3`,
	`bare.example. 60 IN AAAA 2001:db8::3`,
	`other.example. 60 IN NAPTR 1 1 "s" "SIP+D2S" "" _sip._sctp.other.example.`,
	`other.example. 60 IN A 192.0.2.4`,
	`lost.example. 60 IN NAPTR 1 1 "s" "SIP+D2T" "" _sip._tcp.lost.example.`,
	`lost.example. 60 IN A 192.0.2.5`,

	`none.example. 60 IN A 192.0.2.6`,
	`_sip._udp.none.example. 60 IN SRV 0 0 0 .`,
	`_sip._tcp.none.example. 60 IN SRV 0 0 0 .`,
	`half.example. 60 IN A 192.0.2.6`,
	`_sip._udp.half.example. 60 IN SRV 0 0 0 .`,
	`_sip._tcp.half.example. 60 IN SRV 0 0 5060 one.example.`,
	`gone.example. 60 IN A 192.0.2.6`,
	`_sip._udp.gone.example. 60 IN SRV 0 0 5060 nowhere.example.`,
	`odd.example. 60 IN A 192.0.2.6`,
	`_sip._udp.odd.example. 60 IN SRV 0 0 5060 192.0.2.9.`,
	`_sip._udp.odd.example. 60 IN SRV 0 0 0 one.example.`,
	`_sip._udp.odd.example. 60 IN SRV 1 0 5060 alias.example.`,
	`text.example. 60 IN TXT "no address"`,

	`one.example. 60 IN A 192.0.2.1`,
	`two.example. 60 IN A 192.0.2.2`,
	`two.example. 60 IN AAAA 2001:db8::2`,
	`alias.example. 60 IN CNAME second.example.`,
	`second.example. 60 IN CNAME one.example.`,
	`round.example. 60 IN CNAME trip.example.`,
	`trip.example. 60 IN CNAME round.example.`,
	`evil.example. 60 IN A 0.0.0.0`,
	`evil.example. 60 IN A 224.0.0.1`,
}

func TestHops(t *testing.T) {
	t.Parallel()
	r, _ := newResolver(t, serveZone(t, zone...))
	for _, test := range []struct{ uri, want string }{
		// Numeric hosts (§4.1, §4.2).
		{"sip:192.0.2.1", "udp 192.0.2.1:5060"},
		{"sip:u@192.0.2.1:5090", "udp 192.0.2.1:5090"},
		{"sip:192.0.2.1;transport=TCP", "tcp 192.0.2.1:5060"},
		{"sip:192.0.2.1;transport=tls", "tls 192.0.2.1:5061 (192.0.2.1)"},
		{"sips:192.0.2.1", "tls 192.0.2.1:5061 (192.0.2.1)"},
		{"sip:[2001:db8::1]:5070;transport=udp", "udp [2001:db8::1]:5070"},
		{"sips:[2001:db8::1]", "tls [2001:db8::1]:5061 (2001:db8::1)"},
		{"sip:bare.example;maddr=192.0.2.77;transport=tls", "tls 192.0.2.77:5061 (bare.example)"},
		{"sip:nowhere.example;maddr=bare.example;transport=tcp", "tcp [2001:db8::3]:5060, tcp 192.0.2.3:5060"},
		// A port: no SRV.
		{"sip:serv.example:5060", "udp 192.0.2.99:5060"},
		{"sip:serv.example:5065;transport=tcp", "tcp 192.0.2.99:5065"},
		{"sips:serv.example:5065", "tls 192.0.2.99:5065 (serv.example)"},
		// NAPTR.
		{"sip:napt.example", "tls 192.0.2.1:5072 (napt.example), tcp 192.0.2.1:5071, udp 192.0.2.1:5070"},
		{"sip:NAPT.example.", "tls 192.0.2.1:5072 (NAPT.example), tcp 192.0.2.1:5071, udp 192.0.2.1:5070"},
		{"sips:napt.example", "tls 192.0.2.1:5072 (napt.example)"},
		{"sip:napt.example;transport=tcp", "tcp 192.0.2.1:5071"},
		{"sip:other.example", "udp 192.0.2.4:5060"},
		{"sip:lost.example", "tcp 192.0.2.5:5060"},
		// SRV.
		{"sip:serv.example", "udp 192.0.2.1:5080, udp [2001:db8::2]:5060, udp 192.0.2.2:5060, tcp 192.0.2.1:5080"},
		{"sip:serv.example;transport=tls", "tls 192.0.2.1:5081 (serv.example)"},
		{"sips:serv.example", "tls 192.0.2.1:5081 (serv.example)"},
		{"sips:serv.example;transport=tcp", "tls 192.0.2.1:5081 (serv.example)"},
		{"sip:half.example", "tcp 192.0.2.1:5060"},
		{"sip:odd.example", "udp 192.0.2.1:5060"},
		// Addresses alone.
		{"sip:bare.example", "udp [2001:db8::3]:5060, udp 192.0.2.3:5060"},
		{"sips:bare.example", "tls [2001:db8::3]:5061 (bare.example), tls 192.0.2.3:5061 (bare.example)"},
		{"sip:alias.example;transport=tcp", "tcp 192.0.2.1:5060"},
		{"sip:localhost:5070", "udp [::1]:5070, udp 127.0.0.1:5070"},
	} {
		hops, err := r.Hops(t.Context(), parseURI(t, test.uri))
		if got := hopsText(hops); err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.uri, got, err, test.want)
		}
	}
}

func TestNoHops(t *testing.T) {
	t.Parallel()
	r, _ := newResolver(t, serveZone(t, zone...))
	for _, test := range []struct {
		uri       string
		reason    message.Reason
		temporary bool
	}{
		{"sip:nowhere.example", message.UnknownRecipient, false},
		{"sip:text.example", message.UnknownRecipient, false},
		{"sip:none.example", message.UnknownRecipient, false},
		{"sip:gone.example", message.UnknownRecipient, false},
		{"sip:evil.example", message.UnknownRecipient, false},
		{"sip:round.example", message.Unavailable, true},
		{"sip:under_score.example", message.UnknownRecipient, false},
		{"sip:-.example", message.UnknownRecipient, false},
		{"sip:1.2.3", message.UnknownRecipient, false},
		{"sip:a..b", message.UnknownRecipient, false},
		{"sip:" + strings.Repeat("a", 64) + ".example", message.UnknownRecipient, false},
		{"sip:" + strings.Repeat("a.", 126) + "example", message.UnknownRecipient, false},
		{"sip:one.example;transport=ws", message.Unbuildable, false},
		{"sip:one.example;transport=sctp", message.Unbuildable, false},
		{"sips:one.example;transport=udp", message.Unbuildable, false},
	} {
		hops, err := r.Hops(t.Context(), parseURI(t, test.uri))
		f := message.AsFailure(err)
		if err == nil || f.Reason != test.reason || f.Temporary != test.temporary {
			t.Errorf("%s: %s, %v", test.uri, hopsText(hops), err)
		}
	}
}

// TestNoQueryForWhatIsNoName: a name server sees only names of hosts, and none
// for what is known without it.
func TestNoQueryForWhatIsNoName(t *testing.T) {
	t.Parallel()
	s := serveZone(t)
	r, _ := newResolver(t, s)
	for _, uri := range []string{"sip:192.0.2.1", "sip:[::1]", "sip:localhost:5060", "sip:1.2.3.4.5", "sip:a_b.example", "sip:one.example;transport=ws"} {
		_, _ = r.Hops(t.Context(), parseURI(t, uri))
	}
	if asked := s.questions(); len(asked) > 0 {
		t.Errorf("asked %q", asked)
	}
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	s := serveZone(t, zone...)
	r, _ := newResolver(t, s)
	for _, test := range []struct {
		uri  string
		want []string
	}{
		{"sip:bare.example:5060", []string{"A bare.example.", "AAAA bare.example."}},
		{"sip:bare.example", []string{"NAPTR bare.example.", "SRV _sip._tcp.bare.example.", "SRV _sip._udp.bare.example."}},
		{"sip:napt.example;transport=udp", []string{"A one.example.", "AAAA one.example.", "SRV _sip._udp.napt.example."}},
		{"sip:napt.example", []string{"NAPTR napt.example.", "SRV _sip._tcp.napt.example.", "SRV _sips._tcp.napt.example."}},
		{"sip:napt.example", nil},
	} {
		if _, err := r.Hops(t.Context(), parseURI(t, test.uri)); err != nil {
			t.Error(test.uri, err)
		}
		if asked := s.questions(); !slices.Equal(asked, test.want) {
			t.Errorf("%s: asked %q, want %q", test.uri, asked, test.want)
		}
	}
}

// TestManyServers: a domain can't make us try, or ask about, any number.
func TestManyServers(t *testing.T) {
	t.Parallel()
	var records []string
	for i := range 40 {
		n := fmt.Sprintf("host%d", i)
		records = append(records, "_sip._udp.many.example. 60 IN SRV 1 1 5060 "+n+".example.")
		for j := range 20 {
			records = append(records, n+fmt.Sprintf(".example. 60 IN A 198.51.%d.%d", i, j))
		}
	}
	s := serveZone(t, records...)
	r, _ := newResolver(t, s)
	hops, err := r.Hops(t.Context(), parseURI(t, "sip:many.example;transport=udp"))
	if err != nil || len(hops) != maxHops {
		t.Errorf("%d hops, %v", len(hops), err)
	}
	if asked := s.questions(); len(asked) > 1+2*maxServers+2*maxAddresses {
		t.Errorf("asked %d questions: %q", len(asked), asked)
	}
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	s := serveZone(t, append(zone, "six.example. 60 IN AAAA 2001:db8::6")...)
	for _, test := range []struct {
		uri    string
		routed func(netip.Addr) bool
		want   string
	}{
		{"sip:bare.example:5060", netip.Addr.Is4, "udp 192.0.2.3:5060"},
		{"sip:bare.example:5060", netip.Addr.Is6, "udp [2001:db8::3]:5060"},
		{"sip:six.example:5060", netip.Addr.Is4, "udp [2001:db8::6]:5060"}, // no way now
		{"sip:bare.example:5060", func(netip.Addr) bool { return false }, "udp [2001:db8::3]:5060, udp 192.0.2.3:5060"},
	} {
		r, _ := newResolver(t, s)
		r.routed = test.routed
		hops, err := r.Hops(t.Context(), parseURI(t, test.uri))
		if got := hopsText(hops); err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.uri, got, err, test.want)
		}
	}
}

// TestShare: all addresses of a name have their turn as the first.
func TestShare(t *testing.T) {
	t.Parallel()
	r, _ := newResolver(t, serveZone(t, "pair.example. 60 IN A 192.0.2.1", "pair.example. 60 IN A 192.0.2.2"))
	turn := 0
	r.draw = func(n int) int { turn++; return turn % n }
	first := map[netip.AddrPort]int{}
	for range 10 {
		hops, err := r.Hops(t.Context(), parseURI(t, "sip:pair.example:5060"))
		if err != nil || len(hops) != 2 {
			t.Fatal(hops, err)
		}
		first[hops[0].Address]++
	}
	if len(first) != 2 {
		t.Errorf("%v", first)
	}
}

func TestHopsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	s := serveZone(t)
	s.answers(func(string, *dns.Msg) (*dns.Msg, bool) { return nil, true })
	r, _ := newResolver(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Hops(ctx, parseURI(t, "sip:bare.example"))
	if f := message.AsFailure(err); err == nil || f.Reason != message.Unavailable || !f.Temporary {
		t.Error(err)
	}
	r.Close() // what is under way doesn't hold it up
	if _, err := r.Hops(t.Context(), parseURI(t, "sip:later.example")); err == nil {
		t.Error("a closed resolver answers")
	}
}
