package plugintest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func sendCases() []Case[TransportHarness] {
	return []Case[TransportHarness]{
		{"Send hands the peer the message unchanged, and returns a receipt", transportSends},
		{"Send leaves the message as it was", transportLeavesMessage},
		{"a peer's refusal is a failure, for good or for now as the peer says", transportPeerRefuses},
		{"Send ends soon after its context, with a temporary failure", transportPeerSilent},
		{"several attempts run at the same time", transportSendsAtOnce},
		{"a receipt has names of 1 to 64 octets for at most 255 parts", transportReceipt},
		{"what a peer refuses whole comes back without parts", transportNoParts},
		{"nothing in a message becomes syntax", transportInjection},
		{"repeats of a delivery have its reference, and no other delivery has", transportReference},
	}
}

// transportPeer is a peer behind a route.
type transportPeer struct {
	b     *transportBench
	route plugin.Route
	heard chan Heard
}

// peer makes a peer that answers everything in the same way.
func (b *transportBench) peer(reply Reply) *transportPeer {
	b.Helper()
	return b.thoughtfulPeer(func(<-chan struct{}) Reply { return reply })
}

// thoughtfulPeer makes a peer that takes its time for an answer: until the
// channel that it gets is closed, which is at the end of the case.
func (b *transportBench) thoughtfulPeer(answer func(over <-chan struct{}) Reply) *transportPeer {
	b.Helper()
	over, heard := make(chan struct{}), make(chan Heard, 64)
	route := b.h.Route(b, func(h Heard) Reply {
		heard <- h
		return answer(over)
	})
	b.Cleanup(func() { close(over) })
	return &transportPeer{b: b, route: route, heard: heard}
}

// delivery is the way to the peer for a delivery of its own.
func (p *transportPeer) delivery() plugin.Route {
	route := p.route
	route.Reference = message.NewPublicID() + ".0a1b2c3d"
	return route
}

// next waits for what the peer hears.
func (p *transportPeer) next() Heard {
	p.b.Helper()
	select {
	case h := <-p.heard:
		return h
	case <-time.After(soon):
		p.b.Fatalf("the peer has heard nothing within %s", soon)
		return Heard{}
	}
}

// outgoing is a message that is to be sent.
func outgoing(body string) *message.Message {
	now := time.Now()
	return &message.Message{
		ID: new(message.Generator).New(now), PublicID: message.NewPublicID(), Received: now,
		From: transportAlice, DisplayName: "Alice", Recipient: transportBob,
		ContentType: transportText, Body: []byte(body), Hops: 10,
		Headers: []message.Header{{Name: "Subject", Value: "greetings"}},
	}
}

// sendResult is what one call of Send returned.
type sendResult struct {
	receipt plugin.Receipt
	err     error
}

func (b *transportBench) sendLater(ctx context.Context, m *message.Message, route plugin.Route) <-chan sendResult {
	result := make(chan sendResult, 1)
	go func() {
		receipt, err := b.door.Send(ctx, m, route)
		result <- sendResult{receipt, err}
	}()
	return result
}

// outcome waits for what Send returns.
func (b *transportBench) outcome(what string, result <-chan sendResult) sendResult {
	b.Helper()
	select {
	case r := <-result:
		return r
	case <-time.After(soon):
		b.Fatalf("%s: Send has not returned within %s", what, soon)
		return sendResult{}
	}
}

func (b *transportBench) send(what string, m *message.Message, route plugin.Route) sendResult {
	b.Helper()
	return b.outcome(what, b.sendLater(b.Context(), m, route))
}

// deliver sends a message that the peer takes.
func (b *transportBench) deliver(what string, m *message.Message, route plugin.Route) plugin.Receipt {
	b.Helper()
	r := b.send(what, m, route)
	if r.err != nil {
		b.Fatalf("%s: Send to a peer that takes it: %v", what, r.err)
	}
	return r.receipt
}

func transportSends(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	peer := b.peer(Taken)
	for _, content := range transportContents() {
		m := outgoing(content.body)
		m.ContentType = content.contentType
		b.deliver(content.what, m, peer.delivery())
		heard := peer.next()
		b.wantAddresses(content.what, heard.From, heard.To)
		b.wantContent(content.what, heard.ContentType, heard.Body, content.contentType, content.body)
	}
}

// transportLeavesMessage: the message belongs to the engine, which sends it to
// several devices at once.
func transportLeavesMessage(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	m := outgoing("hello")
	before := *m
	before.Body, before.Headers = bytes.Clone(m.Body), slices.Clone(m.Headers)
	b.deliver("a message", m, b.peer(Taken).delivery())
	if !reflect.DeepEqual(*m, before) {
		t.Errorf("the message was\n\t%+v\nand after Send it is\n\t%+v", before, *m)
	}
}

func transportPeerRefuses(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, test := range []struct {
		reply     Reply
		temporary bool
	}{{Refused, false}, {Later, true}, {Elsewhere, true}} {
		what := "a message that is " + string(test.reply)
		r := b.send(what, outgoing("hello"), b.peer(test.reply).delivery())
		b.wantFailure(what, r.err, test.temporary)
	}
}

// transportReceipt: one that isn't final and has no names is sound. Then nobody
// reports.
func transportReceipt(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, content := range transportContents() {
		m := outgoing(content.body)
		m.ContentType = content.contentType
		receipt := b.deliver(content.what, m, b.peer(Taken).delivery())
		if err := receipt.Validate(false); err != nil {
			t.Errorf("%s: the receipt has %v", content.what, err)
		}
	}
}

// transportNoParts sends what is short enough to go in one part.
func transportNoParts(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, reply := range []Reply{Refused, Later, Elsewhere} {
		what := "a message that is " + string(reply)
		r := b.send(what, outgoing("hello"), b.peer(reply).delivery())
		if r.err != nil && len(r.receipt.PeerIDs)+len(r.receipt.Progress) > 0 {
			t.Errorf("%s: Send failed and returned the receipt %+v", what, r.receipt)
		}
	}
}

func (b *transportBench) wantFailure(what string, err error, temporary bool) {
	b.Helper()
	f, ok := errors.AsType[*message.Failure](err)
	switch {
	case err == nil:
		b.Errorf("%s: Send returned no error", what)
	case !ok:
		b.Errorf("%s: Send's error is a %T, want a *message.Failure: %v", what, err, err)
	case f.Temporary != temporary:
		b.Errorf("%s: Send's failure %q is temporary: %t, want %t", what, f, f.Temporary, temporary)
	}
}

func transportPeerSilent(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	silent := func(over <-chan struct{}) Reply { <-over; return Silence }

	const late = "a peer that doesn't answer in time"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := b.outcome(late, b.sendLater(ctx, outgoing("hello"), b.thoughtfulPeer(silent).delivery()))
	b.wantFailure(late, r.err, true)

	const abandoned = "an attempt that is given up"
	peer := b.thoughtfulPeer(silent)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	result := b.sendLater(ctx, outgoing("hello"), peer.delivery())
	peer.next()
	cancel()
	b.wantFailure(abandoned, b.outcome(abandoned, result).err, true)
}

// transportSendsAtOnce: the peer answers nobody before all are there.
func transportSendsAtOnce(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	const n = 8
	var there atomic.Int64
	complete := make(chan struct{})
	peer := b.thoughtfulPeer(func(over <-chan struct{}) Reply {
		if there.Add(1) == n {
			close(complete)
		}
		select {
		case <-complete:
			return Taken
		case <-over:
			return Silence
		}
	})
	var results []<-chan sendResult
	for range n {
		results = append(results, b.sendLater(t.Context(), outgoing("hello"), peer.delivery()))
	}
	for _, result := range results {
		if r := b.outcome("one of several at once", result); r.err != nil {
			t.Errorf("one of %d messages sent at once: %v", n, r.err)
		}
	}
}

// injections are messages that try to say more than their peer should read.
// None touches the body or the sender.
var injections = []struct {
	what  string
	spoil func(*message.Message)
}{
	{"display name with a line end", func(m *message.Message) { m.DisplayName = "Alice\r\nInjected: yes" }},
	{"display name with an empty line", func(m *message.Message) { m.DisplayName = "Alice\r\n\r\nInjected" }},
	{"display name with a sender in it", func(m *message.Message) { m.DisplayName = `Eve" <sip:eve@e.example>;tag=x, "` }},
	{"header value with a line end", func(m *message.Message) { m.Headers[0].Value = "hi\r\nInjected: yes" }},
	{"header value with a bare line feed", func(m *message.Message) { m.Headers[0].Value = "hi\nInjected: yes" }},
	{"header value with an empty line", func(m *message.Message) { m.Headers[0].Value = "hi\r\n\r\nInjected" }},
	{"header name with a line end", func(m *message.Message) { m.Headers[0].Name = "Subject: hi\r\nInjected" }},
	{"content type with a line end", func(m *message.Message) { m.ContentType += "\r\nInjected: yes" }},
	{"content type with an empty line", func(m *message.Message) { m.ContentType += "\r\n\r\nInjected" }},
}

// transportInjection sends an innocent message behind each guilty one: whatever
// a split leaves over is heard before it.
func transportInjection(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, injection := range injections {
		peer := b.peer(Taken)
		m := outgoing("guilty")
		injection.spoil(m)
		r := b.send(injection.what, m, peer.delivery())
		if r.err == nil {
			b.wantHarmless(injection.what, peer.next(), "guilty")
		} else {
			b.wantUnbuildable(injection.what, r.err)
		}
		b.deliver(injection.what, outgoing("innocent"), peer.delivery())
		b.wantHarmless("after a "+injection.what, peer.next(), "innocent")
	}
}

func (b *transportBench) wantHarmless(what string, heard Heard, body string) {
	b.Helper()
	b.wantAddresses(what, heard.From, heard.To)
	if string(heard.Body) != body {
		b.Errorf("%s: the peer reads the body %q, want %q", what, heard.Body, body)
	}
	for _, header := range heard.Headers {
		if strings.EqualFold(header.Name, "Injected") {
			b.Errorf("%s: the peer reads a header that was injected", what)
		}
	}
}

func (b *transportBench) wantUnbuildable(what string, err error) {
	b.Helper()
	b.wantFailure(what, err, false)
	if f := message.AsFailure(err); f.Reason != message.Unbuildable {
		b.Errorf("%s: Send fails with the reason %q, want %q", what, f.Reason, message.Unbuildable)
	}
}

func transportReference(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	peer := b.peer(Taken)
	m, one, two := outgoing("hello"), peer.delivery(), peer.delivery()
	reference := func(route plugin.Route) string {
		b.deliver("an attempt", m, route)
		return peer.next().Reference
	}
	first, repeat, other := reference(one), reference(one), reference(two)
	if first != repeat {
		t.Errorf("two attempts of one delivery have the references %q and %q", first, repeat)
	}
	if first == other {
		t.Errorf("two deliveries have the same reference %q", first)
	}
}
