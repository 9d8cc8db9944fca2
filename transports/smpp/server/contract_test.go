package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestContract(t *testing.T) {
	plugintest.Transport(t, func(plugintest.T) plugintest.TransportHarness {
		n := &neighbourhood{listen: "tcp://127.0.0.1:0", peers: map[string]*sender{}, hosts: map[string]plugin.Account{}}
		return plugintest.TransportHarness{Open: n.open, Say: n.say, Register: n.register, Route: n.route}
	})
}

// neighbourhood is a door and the ESMEs around it. The suite's people have
// addresses with domains and a long password; in between stands who knows which
// number bob has, and what the password was before it was cut to eight octets.
type neighbourhood struct {
	door   *Door
	listen string

	mu    sync.Mutex
	peers map[string]*sender // by who says what first: a repeat comes on the connection of what it repeats
	hosts map[string]plugin.Account
}

const (
	contractPassword = "correct horse"
	bobsNumber       = "15550100"
)

var bob = message.Address{User: "bob", Host: "b.example"}

// open opens the first door on any port, and each later one on the same.
func (n *neighbourhood) open(t plugintest.T) plugin.Transport {
	if n.door != nil && len(n.door.Addrs()) > 0 { // else it was never served
		n.listen = "tcp://" + n.door.Addrs()[0].String()
	}
	config := Defaults
	config.Listen, config.Dialect.Domain, config.Binds = []string{n.listen}, "a.example", 500
	config.Dialect.Plus = false
	door, err := New(t.Context(), plugin.Env{Instance: "esmes", Node: "n1"}, config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	n.door = door
	return numberedDoor{door, n}
}

// numberedDoor knows bob's number.
type numberedDoor struct {
	*Door
	n *neighbourhood
}

func (d numberedDoor) Serve(ctx context.Context, g plugin.Gate) error {
	return d.Door.Serve(ctx, numberedGate{g, d.n})
}

func (d numberedDoor) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	copied := *m
	if m.Recipient == bob {
		copied.Recipient = message.Address{User: bobsNumber}
	}
	if m.ContentType == "application/octet-stream" { // as one that came by SMS
		copied.Headers = append(slices.Clone(m.Headers), message.Header{Name: "SMPP-Data-Coding", Value: "4"})
	}
	return d.Door.Send(ctx, &copied, route)
}

type numberedGate struct {
	plugin.Gate
	n *neighbourhood
}

func (g numberedGate) Authenticate(ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	g.n.mu.Lock()
	account, found := g.n.hosts[c.Password.SystemID]
	g.n.mu.Unlock()
	if found {
		return account, nil
	}
	if c.Password.Password == contractPassword[:8] {
		c.Password.Password = contractPassword
	}
	return g.Gate.Authenticate(ctx, c)
}

func (g numberedGate) Submit(a plugin.Arrival) plugin.Ticket {
	if a.Message.Recipient.User == bobsNumber {
		a.Message.Recipient = bob
	}
	return g.Gate.Submit(a)
}

// sender is an ESME that keeps its connection, and the numbers of what it has
// said.
type sender struct {
	*peer
	numbers map[string]uint32 // by the suite's ID
}

func (n *neighbourhood) say(ctx context.Context, messages ...plugintest.Said) []plugintest.Reply {
	replies := slices.Repeat([]plugintest.Reply{plugintest.Silence}, len(messages))
	for range 2 { // one who was unbound before he got his answer tries it elsewhere, which is here
		s, reply := n.sender(ctx, messages[0])
		if s == nil {
			replies[0] = reply
			return replies
		}
		if n.sayTo(ctx, s, messages, replies) {
			return replies
		}
	}
	return replies
}

// sayTo says messages on one connection. False: it has ended before all was
// answered.
func (n *neighbourhood) sayTo(ctx context.Context, s *sender, messages []plugintest.Said, replies []plugintest.Reply) bool {
	answers := make([]<-chan wire.Packet, len(messages))
	for i, m := range messages {
		var err error
		if answers[i], err = s.say(s.packet(m)); err != nil {
			return false
		}
	}
	for i, answer := range answers {
		a, err := s.await(ctx, answer)
		if err != nil {
			return ctx.Err() != nil
		}
		replies[i] = replyOf(a.Status)
	}
	return true
}

// sender returns who says a message: the connection on which it was said before,
// if that is still there.
func (n *neighbourhood) sender(ctx context.Context, m plugintest.Said) (*sender, plugintest.Reply) {
	key := m.From.String() + " " + m.ID
	n.mu.Lock()
	s := n.peers[key]
	n.mu.Unlock()
	if s != nil {
		select {
		case <-s.gone:
		default:
			return s, ""
		}
	}
	p, reply := n.bind(ctx, pdu.BindTransmitterID, m.From.String(), m.Secret, nil)
	if p == nil {
		return nil, reply
	}
	s = &sender{p, map[string]uint32{}}
	n.mu.Lock()
	n.peers[key] = s
	n.mu.Unlock()
	return s, ""
}

// bind returns a peer that is bound, or how it was refused.
func (n *neighbourhood) bind(ctx context.Context, mode pdu.ID, systemID, secret string, hear func(*peer, wire.Packet)) (*peer, plugintest.Reply) {
	conn, err := net.Dial("tcp", n.door.Addrs()[0].String())
	if err != nil {
		return nil, plugintest.Silence
	}
	p := connect(conn, hear)
	a, err := p.ask(ctx, bindAs(mode, systemID, secret[:min(8, len(secret))]))
	switch {
	case err != nil:
		conn.Close()
		return nil, plugintest.Silence
	case a.Status != wire.ROK:
		conn.Close()
		return nil, replyOf(a.Status)
	}
	return p, plugintest.Taken
}

func replyOf(status pdu.Status) plugintest.Reply {
	switch status {
	case wire.ROK:
		return plugintest.Taken
	case wire.RSysErr, wire.RThrottled:
		return plugintest.Elsewhere
	case wire.RMsgQFul:
		return plugintest.Later
	}
	return plugintest.Refused
}

// packet is a message as an ESME writes it. What it has said before it says under
// the same number.
func (s *sender) packet(m plugintest.Said) wire.Packet {
	number, found := s.numbers[m.ID]
	if !found {
		number = uint32(len(s.numbers)) + 100
		s.numbers[m.ID] = number
	}
	short := &wire.Short{
		Of: pdu.SubmitSMID, Source: wire.Address{TON: 5, Number: m.From.User}, Destination: numbered(bobsNumber),
	}
	short.Destination.TON = 0
	q := wire.Packet{ID: pdu.SubmitSMID, Sequence: number, Body: short}
	data := m.Body
	short.DataCoding = 4
	if strings.HasPrefix(m.ContentType, "text/") {
		segments, err := text.Encode(string(m.Body), Defaults.Dialect.Text)
		if err != nil || len(segments) != 1 {
			panic(fmt.Sprintf("%q: %v", m.Body, err))
		}
		data, short.DataCoding = segments[0].Data, segments[0].DataCoding
	}
	if len(data) > 254 {
		q.TLVs = wire.TLVs{{Tag: pdutlv.TagMessagePayload, Value: data}}
		return q
	}
	short.Text = data
	return q
}

func (n *neighbourhood) register(ctx context.Context, aor message.Address, secret string) plugintest.Reply {
	p, reply := n.bind(ctx, pdu.BindReceiverID, aor.String(), secret, nil)
	if p != nil {
		p.conn.Close()
		<-p.gone
	}
	return reply
}

// route makes an ESME with an account of its own.
func (n *neighbourhood) route(t plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	name := "host" + message.NewPublicID()[:8]
	n.mu.Lock()
	n.hosts[name] = plugin.Account{ID: name, Identities: []message.Address{{User: name}}}
	n.mu.Unlock()
	var tasks sync.WaitGroup
	p, reply := n.bind(t.Context(), pdu.BindTransceiverID, name, "x", func(p *peer, q wire.Packet) {
		if q.ID != pdu.DeliverSMID {
			p.answer(q, wire.ROK)
			return
		}
		tasks.Go(func() {
			if status, answers := statusFor(hear(heardIn(q))); answers {
				p.answer(q, status)
			}
		})
	})
	if p == nil {
		t.Fatalf("the ESME's bind is %s", reply)
	}
	for deadline := time.Now().Add(soon); !n.door.takes(name, bobsNumber) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	t.Cleanup(func() {
		p.conn.Close()
		<-p.gone
		tasks.Wait()
	})
	return plugin.Route{Transport: "esmes", Binding: &plugin.Binding{Account: name, Contact: "smpp:" + name, Device: name}}
}

func statusFor(r plugintest.Reply) (status pdu.Status, answers bool) {
	switch r {
	case plugintest.Taken:
		return wire.ROK, true
	case plugintest.Refused:
		return wire.RxRAppn, true
	case plugintest.Later:
		return wire.RxTAppn, true
	case plugintest.Elsewhere:
		return wire.RSysErr, true
	}
	return 0, false
}

// heardIn reads a deliver_sm.
func heardIn(q wire.Packet) plugintest.Heard {
	dialect := Defaults.Dialect
	dialect.Domain, dialect.Plus = "a.example", false
	in, err := dialect.Incoming(q, time.Now())
	if err != nil || in.Message == nil {
		return plugintest.Heard{}
	}
	m := in.Message
	h := plugintest.Heard{From: m.From, To: m.Recipient, ContentType: m.ContentType, Body: m.Body, Headers: m.Headers}
	if h.To.User == bobsNumber {
		h.To = bob
	}
	if reference, ok := q.TLVs.Uint(pdutlv.TagUserMessageReference); ok {
		h.Reference = fmt.Sprint(reference)
	}
	return h
}
