package resolve

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/imgate/imgate/engine/message"
)

func TestTruncatedAnswersComeOverTCP(t *testing.T) {
	t.Parallel()
	var records []string
	for i := range 100 {
		records = append(records, fmt.Sprintf("_sip._udp.big.example. 60 IN SRV %d 0 5060 server-with-a-long-name-%d.example.", 100-i, i))
	}
	records = append(records, "server-with-a-long-name-99.example. 60 IN A 192.0.2.1")
	s := serveZone(t, records...)
	r, _ := newResolver(t, s)
	a, err := r.ask(question{"_sip._udp.big.example.", dns.TypeSRV}).wait(t.Context())
	if err != nil || len(a.servers) != maxServices {
		t.Errorf("%d servers, %v", len(a.servers), err)
	}
}

func TestTruncatedOverTCPIsNoAnswer(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "h.example. 60 IN A 192.0.2.1")
	s.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) {
		reply := s.reply(m)
		reply.Truncated = true
		return reply, false
	})
	r, _ := newResolver(t, s)
	if got := r.text(t, "sip:h.example:5060"); got != string(message.Unavailable) {
		t.Error(got)
	}
}

// TestSilentNameServer: the next one is asked, and from then on first.
func TestSilentNameServer(t *testing.T) {
	t.Parallel()
	silent, other := serveZone(t), serveZone(t, "h.example. 60 IN A 192.0.2.1", "g.example. 60 IN A 192.0.2.2")
	silent.answers(func(string, *dns.Msg) (*dns.Msg, bool) { return nil, true })
	r, _ := newResolver(t, silent, other)
	if got := r.text(t, "sip:h.example:5060"); got != "udp 192.0.2.1:5060" {
		t.Error(got)
	}
	if asked := silent.questions(); len(asked) != 2 {
		t.Errorf("the silent one was asked %q", asked)
	}
	if got := r.text(t, "sip:g.example:5060"); got != "udp 192.0.2.2:5060" {
		t.Error(got)
	}
	if asked := silent.questions(); len(asked) != 0 {
		t.Errorf("the silent one was asked again: %q", asked)
	}
}

// TestRefusingNameServers: a refusal isn't an answer, of whatever kind.
func TestRefusingNameServers(t *testing.T) {
	t.Parallel()
	for _, code := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError} {
		first, second := serveZone(t), serveZone(t, "h.example. 60 IN A 192.0.2.1")
		first.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) { return new(dns.Msg).SetRcode(m, code), false })
		r, _ := newResolver(t, first, second)
		if got := r.text(t, "sip:h.example:5060"); got != "udp 192.0.2.1:5060" {
			t.Errorf("%s: %s", dns.RcodeToString[code], got)
		}
		r, _ = newResolver(t, first)
		if got := r.text(t, "sip:h.example:5060"); got != string(message.Unavailable) {
			t.Errorf("%s alone: %s", dns.RcodeToString[code], got)
		}
	}
}

// TestNameServerWithoutEDNS: some answer FORMERR, with or without the question.
func TestNameServerWithoutEDNS(t *testing.T) {
	t.Parallel()
	for _, repeats := range []bool{true, false} {
		s := serveZone(t, "h.example. 60 IN A 192.0.2.1")
		s.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) {
			if m.IsEdns0() == nil {
				return nil, false
			}
			reply := new(dns.Msg).SetRcode(m, dns.RcodeFormatError)
			if !repeats {
				reply.Question = nil
			}
			return reply, false
		})
		r, _ := newResolver(t, s)
		if got := r.text(t, "sip:h.example:5060"); got != "udp 192.0.2.1:5060" {
			t.Error(repeats, got)
		}
	}
}

// TestLies: what doesn't answer the question is passed over, and the answer
// behind it is read.
func TestLies(t *testing.T) {
	t.Parallel()
	lie, _ := dns.NewRR("h.example. 60 IN A 203.0.113.66")
	lies := map[string]func(m *dns.Msg){
		"another id":       func(m *dns.Msg) { m.Id++ },
		"another name":     func(m *dns.Msg) { m.Question[0].Name = "g.example." },
		"another type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT },
		"another class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"no question":      func(m *dns.Msg) { m.Question = nil },
		"two questions":    func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"a question":       func(m *dns.Msg) { m.Response = false },
		"another opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"what can't be it": nil,
	}
	for what, spoil := range lies {
		address := liar(t, func(asked *dns.Msg) [][]byte {
			truth := new(dns.Msg).SetReply(asked)
			if asked.Question[0].Qtype == dns.TypeA {
				record, _ := dns.NewRR("h.example. 60 IN A 192.0.2.1")
				truth.Answer = []dns.RR{record}
			}
			whole, _ := truth.Pack()
			if spoil == nil {
				return [][]byte{{1, 2, 3}, whole[:len(whole)-1], whole}
			}
			false_ := new(dns.Msg).SetReply(asked)
			false_.Answer = []dns.RR{lie}
			spoil(false_)
			packet, _ := false_.Pack()
			return [][]byte{packet, whole}
		})
		r := New(t.Context(), Config{Servers: []netip.AddrPort{address}})
		defer r.Close()
		if got := r.text(t, "sip:h.example:5060"); got != "udp 192.0.2.1:5060" {
			t.Errorf("%s: %s", what, got)
		}
	}
}

// TestStrayRecords: an answer's records of other names are nobody's business.
func TestStrayRecords(t *testing.T) {
	t.Parallel()
	s := serveZone(t, "h.example. 60 IN A 192.0.2.1")
	s.answers(func(_ string, m *dns.Msg) (*dns.Msg, bool) {
		if m.Question[0].Name != "h.example." {
			return nil, false
		}
		reply := s.reply(m)
		stray, _ := dns.NewRR("g.example. 60 IN A 203.0.113.66")
		reply.Answer = append(reply.Answer, stray)
		reply.Extra = append(reply.Extra, stray)
		return reply, false
	})
	r, _ := newResolver(t, s)
	if got := r.text(t, "sip:h.example:5060"); got != "udp 192.0.2.1:5060" {
		t.Error(got)
	}
	if got := r.text(t, "sip:g.example:5060"); got != string(message.UnknownRecipient) {
		t.Error(got)
	}
}

// liar answers each question with several datagrams.
func liar(t *testing.T, answer func(*dns.Msg) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			asked := new(dns.Msg)
			if asked.Unpack(buffer[:n]) != nil {
				continue
			}
			for _, packet := range answer(asked) {
				_, _ = conn.WriteToUDPAddrPort(packet, from) // who asked may be gone
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestFloodOfLies ends.
func TestFloodOfLies(t *testing.T) {
	t.Parallel()
	address := liar(t, func(asked *dns.Msg) [][]byte {
		asked.Id++
		asked.Response = true
		packet, _ := asked.Pack()
		packets := make([][]byte, maxStray)
		for i := range packets {
			packets[i] = packet
		}
		return packets
	})
	r := New(t.Context(), Config{Servers: []netip.AddrPort{address}})
	defer r.Close()
	begun := time.Now()
	if got := r.text(t, "sip:h.example:5060"); got != string(message.Unavailable) {
		t.Error(got)
	}
	if took := time.Since(begun); took > inquiryWithin+time.Second {
		t.Errorf("took %s", took)
	}
}
