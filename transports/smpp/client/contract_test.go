package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestContract(t *testing.T) {
	plugintest.Transport(t, func(t plugintest.T) plugintest.TransportHarness {
		n := newNetwork(t)
		return plugintest.TransportHarness{
			Open: n.open, Say: n.say, Route: n.route,
			Trusted: func(sender message.Address) plugin.Account {
				return plugin.Account{ID: "vendor", Identities: []message.Address{sender}}
			},
		}
	})
}

// network is an SMSC as simple as can be, of which every octet is ours, and the
// phones behind it. Bob's number stands for bob@b.example: an SMS goes to numbers
// only.
type network struct {
	listener net.Listener
	dialect  translate.Dialect
	serving  atomic.Bool // the instance is

	mu      sync.Mutex
	binding *line // that was made last
	line    *line // that is bound; nil: none ever was
	news    chan struct{}
	phones  map[string]hearing // by number
}

type hearing func(plugintest.Heard) plugintest.Reply

var (
	bob       = message.Address{User: "bob", Host: "b.example"}
	bobNumber = message.Address{User: "+447700900000"}
)

const (
	binaryType = "application/octet-stream"
	// soonBound is how long an active instance may take to bind again.
	soonBound = time.Second
)

var binaryHeader = message.Header{Name: "SMPP-Data-Coding", Value: "4"}

func newNetwork(t plugintest.T) *network {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	n := &network{listener: listener, dialect: translate.Defaults(), news: make(chan struct{}), phones: map[string]hearing{}}
	n.dialect.Domain = "a.example"
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { n.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		n.hangUp()
		tasks.Wait()
	})
	return n
}

func (n *network) open(t plugintest.T) plugin.Transport {
	config := Defaults
	config.Connect = []string{n.listener.Addr().String()}
	config.Reconnect = Reconnect{Min: time.Millisecond, Max: 10 * time.Millisecond}
	config.Dialect = n.dialect
	client, err := New(t.Context(), plugin.Env{Instance: "vendor"}, config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return inNetwork{client, n}
}

// inNetwork is an instance that knows bob by his name.
type inNetwork struct {
	*Client
	network *network
}

func (c inNetwork) Serve(ctx context.Context, gate plugin.Gate) error {
	c.network.serving.Store(true)
	defer c.network.serving.Store(false)
	return c.Client.Serve(ctx, named{gate, c.network})
}

// named is a gate that gives bob his name.
type named struct {
	plugin.Gate
	network *network
}

func (g named) Reachable() {
	g.network.bound()
	g.Gate.Reachable()
}

func (g named) Submit(a plugin.Arrival) plugin.Ticket {
	if a.Message.Recipient == bobNumber {
		a.Message.Recipient = bob
	}
	return g.Gate.Submit(a)
}

// Send gives the phone its number, and says of octets what they are to phones.
func (c inNetwork) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	numbered := *m
	numbered.Recipient = message.Address{User: route.Address}
	if m.ContentType == binaryType {
		numbered.Headers = append(m.Headers[:len(m.Headers):len(m.Headers)], binaryHeader)
	}
	return c.Client.Send(ctx, &numbered, route)
}

// route makes a phone.
func (n *network) route(_ plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := fmt.Sprintf("+4477009%05d", len(n.phones)+1)
	n.phones[number] = hear
	return plugin.Route{Transport: "vendor", Address: number}
}

// line is one bind.
type line struct {
	network *network
	conn    net.Conn
	writing sync.Mutex
	unbound chan struct{} // closed when the instance has unbound
	ended   chan struct{}

	mu        sync.Mutex
	sequences map[string]uint32 // by sender and ID: a repeat has the same
	waiting   map[uint32]chan pdu.Status
}

func (n *network) hangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.binding != nil {
		n.binding.conn.Close()
	}
}

func (n *network) serve(conn net.Conn) {
	l := &line{
		network: n, conn: conn, unbound: make(chan struct{}), ended: make(chan struct{}),
		sequences: map[string]uint32{}, waiting: map[uint32]chan pdu.Status{},
	}
	defer close(l.ended)
	defer conn.Close()
	for {
		p, err := readPDU(conn)
		if err != nil {
			return
		}
		l.take(p)
	}
}

func readPDU(conn net.Conn) (wire.Packet, error) {
	frame := make([]byte, pdu.HeaderLen)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return wire.Packet{}, err
	}
	frame = append(frame, make([]byte, int(binary.BigEndian.Uint32(frame))-pdu.HeaderLen)...)
	if _, err := io.ReadFull(conn, frame[pdu.HeaderLen:]); err != nil {
		return wire.Packet{}, err
	}
	return wire.Decode(frame)
}

func (l *line) write(p wire.Packet) {
	frame, err := wire.Encode(nil, &p)
	if err != nil {
		panic(err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	_, _ = l.conn.Write(frame) // at the end the instance is gone
}

func (l *line) respond(to wire.Packet, status pdu.Status, body wire.Body) {
	l.write(wire.Packet{ID: wire.ResponseTo(to.ID), Status: status, Sequence: to.Sequence, Body: body})
}

func (l *line) take(p wire.Packet) {
	switch body := p.Body.(type) {
	case *wire.Bind:
		l.network.binds(l)
		l.respond(p, wire.ROK, &wire.BindResp{Mode: wire.ResponseTo(p.ID)})
	case *wire.Short:
		go l.hear(p, body)
	case *wire.ShortResp:
		l.settle(p)
	default:
		switch p.ID {
		case pdu.DeliverSMRespID:
			l.settle(p)
		case pdu.UnbindID:
			l.respond(p, wire.ROK, nil)
			close(l.unbound)
		case pdu.EnquireLinkID:
			l.respond(p, wire.ROK, nil)
		}
	}
}

func (n *network) binds(l *line) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.binding = l
}

// bound: the instance knows of the bind too.
func (n *network) bound() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.line = n.binding
	close(n.news)
	n.news = make(chan struct{})
}

// hear lets a phone have what was submitted.
func (l *line) hear(p wire.Packet, short *wire.Short) {
	in, err := l.network.dialect.Incoming(p, time.Now())
	if err != nil {
		l.respond(p, wire.RSysErr, nil)
		return
	}
	l.network.mu.Lock()
	hear := l.network.phones["+"+short.Destination.Number]
	l.network.mu.Unlock()
	reference, _ := p.TLVs.Uint(pdutlv.TagUserMessageReference)
	m := in.Message
	reply := hear(plugintest.Heard{
		Reference: strconv.Itoa(int(reference)), From: m.From, To: bob, ContentType: m.ContentType, Body: m.Body, Headers: m.Headers,
	})
	if status, answers := statusFor(reply); answers {
		l.respond(p, status, &wire.ShortResp{Of: wire.ResponseTo(p.ID), MessageID: message.NewPublicID()})
	}
}

func statusFor(r plugintest.Reply) (status pdu.Status, answers bool) {
	switch r {
	case plugintest.Taken:
		return wire.ROK, true
	case plugintest.Refused:
		return wire.RInvDstAdr, true
	case plugintest.Later:
		return wire.RxTAppn, true
	case plugintest.Elsewhere:
		return wire.RSysErr, true
	}
	return 0, false
}

// say sends messages of phones over the bind.
func (n *network) say(ctx context.Context, messages ...plugintest.Said) []plugintest.Reply {
	replies := make([]plugintest.Reply, len(messages))
	l, reply := n.await(ctx)
	if l == nil {
		for i := range replies {
			replies[i] = reply
		}
		return replies
	}
	statuses := make([]chan pdu.Status, len(messages))
	for i, s := range messages {
		statuses[i] = l.deliver(s)
	}
	for i := range replies {
		replies[i] = l.reply(ctx, statuses[i])
	}
	return replies
}

// await waits for a bind. One that the instance has given up, and doesn't make
// again, says that another node may.
func (n *network) await(ctx context.Context) (*line, plugintest.Reply) {
	patience, cancel := context.WithTimeout(ctx, soonBound)
	defer cancel()
	for {
		n.mu.Lock()
		l, news := n.line, n.news
		n.mu.Unlock()
		if l != nil && l.isUp() {
			return l, ""
		}
		select {
		case <-news:
		case <-patience.Done():
			if l != nil && n.serving.Load() && ctx.Err() == nil {
				return nil, plugintest.Elsewhere
			}
			return nil, plugintest.Silence
		}
	}
}

func (l *line) isUp() bool {
	select {
	case <-l.unbound:
		return false
	case <-l.ended:
		return false
	default:
		return true
	}
}

// deliver sends a message; its answer comes on the channel.
func (l *line) deliver(s plugintest.Said) chan pdu.Status {
	m := &message.Message{From: s.From, Recipient: bobNumber, ContentType: s.ContentType, Body: s.Body}
	if s.ContentType == binaryType {
		m.Headers = []message.Header{binaryHeader}
	}
	parts, err := l.network.dialect.Outgoing(m, plugin.Route{}, pdu.DeliverSMID)
	if err != nil || len(parts) != 1 {
		panic(fmt.Sprint("a message of a phone: ", len(parts), " parts, ", err))
	}
	status := make(chan pdu.Status, 1)
	l.mu.Lock()
	key := s.From.User + " " + s.ID
	if l.sequences[key] == 0 {
		l.sequences[key] = uint32(len(l.sequences)) + 1
	}
	sequence := l.sequences[key]
	l.waiting[sequence] = status
	l.mu.Unlock()
	l.write(wire.Packet{ID: pdu.DeliverSMID, Sequence: sequence, Body: &parts[0].Short, TLVs: parts[0].TLVs})
	return status
}

func (l *line) settle(p wire.Packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status := l.waiting[p.Sequence]; status != nil {
		status <- p.Status
		delete(l.waiting, p.Sequence)
	}
}

func (l *line) reply(ctx context.Context, answer <-chan pdu.Status) plugintest.Reply {
	var status pdu.Status
	select {
	case status = <-answer:
	case <-ctx.Done():
		return plugintest.Silence
	case <-l.ended:
		return plugintest.Silence
	}
	switch status {
	case wire.ROK:
		return plugintest.Taken
	case wire.RxTAppn:
		return plugintest.Elsewhere
	case wire.RThrottled:
		if l.unbinds() {
			return plugintest.Elsewhere
		}
		return plugintest.Later
	case wire.RMsgQFul:
		return plugintest.Later
	}
	return plugintest.Refused
}

// unbinds tells whether the instance is about to: until then it takes nothing.
func (l *line) unbinds() bool {
	select {
	case <-l.unbound:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}
