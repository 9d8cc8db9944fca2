package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func openCases() []Case[TransportHarness] {
	return []Case[TransportHarness]{
		{"Ready is called once, when the door is open", transportReady},
		{"Serve returns nil soon after its context ends, and lets go", transportLetsGo},
		{"one that is opened and never served holds nothing", transportForgotten},
	}
}

func serveCases() []Case[TransportHarness] {
	return []Case[TransportHarness]{
		{"what waits for acceptance neither holds up the end of Serve nor is taken by it", transportEndsWhileWaiting},
		{"a node that isn't active lets nothing in, and says so", transportInactive},
		{"who isn't authenticated gets nothing in", transportStrangers},
		{"messages are submitted in the order in which their sender sent them", transportOrder},
		{"an arrival is what the peer said", transportArrival},
		{"an arrival names the account of its sender", transportAccounts},
		{"a repeat has the key of what it repeats", transportRepeat},
		{"what is no repeat has a key of its own", transportKeys},
		{"a message is called taken only after it was accepted", transportAcceptance},
		{"a message that waits for acceptance doesn't hold up the next of its sender", transportPipelining},
		{"a refusal reaches the peer as what it is", transportRefusals},
		{"what isn't known isn't answered, and its repeat is handed in", transportUnknown},
	}
}

func transportReady(t T, h TransportHarness) {
	b := &transportBench{T: t, h: h}
	b.open()
	if h.Say != nil {
		b.want("right after Ready", said("first", "hello"), Taken)
		if n := len(b.gate.submitted()); n != 1 {
			t.Errorf("right after Ready one message was said and %d were submitted", n)
		}
	}
	b.close()
	if readies, _, _ := b.gate.count(); readies != 1 {
		t.Errorf("Ready was called %d times, want once", readies)
	}
}

func transportLetsGo(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	b.close()
	if b.err != nil {
		t.Errorf("Serve returned %v after the end of its context, want nil", b.err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if got := b.sayNow(ctx, said("late", "hello")); got != Silence {
		t.Errorf("after Serve has returned, a message is %s, want it %s", got, Silence)
	}
	if n := len(b.gate.submitted()); n != 0 {
		t.Errorf("after Serve has returned, %d messages were submitted", n)
	}
	b.open()
	b.greet()
}

func transportForgotten(t T, h TransportHarness) {
	h.Open(t)
	b := &transportBench{T: t, h: h}
	b.open()
	b.greet()
	b.close()
}

func transportEndsWhileWaiting(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.gate.holdNext()
	reply := b.sayLater(ctx, said("waits", "hello"))
	b.arrivals(1)
	b.close()
	time.AfterFunc(patience, cancel) // what Serve said before it returned is there by then
	if got := <-reply; got == Taken {
		t.Errorf("a message that was never accepted is %s", got)
	}
}

func transportInactive(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, why := range []message.Reason{message.Standby, message.Draining} {
		b.gate.deactivate(message.FailForNow(why, "another node is active"))
		b.want("node is "+string(why), said(string(why), "hello"), Elsewhere)
		b.wantRegister("node is "+string(why), Elsewhere)
	}
	if n := len(b.gate.submitted()); n != 0 {
		t.Errorf("%d messages were submitted to a node that isn't active", n)
	}
	if _, _, n := b.gate.count(); n != 0 {
		t.Errorf("%d registrations were passed to a node that isn't active", n)
	}
	b.gate.deactivate(nil)
	b.want("node is active again", said("again", "hello"), Taken)
	b.wantRegister("node is active again", Taken)
}

// wantRegister makes a peer register, where peers do that.
func (b *transportBench) wantRegister(what string, want Reply) {
	b.Helper()
	if b.h.Register == nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	if got := b.h.Register(ctx, transportAlice, transportSecret); got != want {
		b.Errorf("%s: a registration is %s, want it %s", what, got, want)
	}
}

// transportStrangers: who needs no proof gets in, whatever Authenticate would say,
// and it isn't asked.
func transportStrangers(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, test := range []struct {
		what string
		why  *message.Failure
		want Reply
	}{
		{"wrong", message.Fail(message.Unauthenticated, "wrong credentials"), Refused},
		{"suspended", message.Fail(message.Forbidden, "suspended"), Refused},
		{"nobodytoask", message.FailForNow(message.Internal, "nobody can be asked"), Later},
	} {
		if h.Trusted != nil {
			test.want = Taken
		}
		b.gate.estrange(test.why)
		b.want(test.why.Error(), said(test.what, "hello"), test.want)
	}
	_, asked, _ := b.gate.count()
	switch n := len(b.gate.submitted()); {
	case h.Trusted == nil && n != 0:
		t.Errorf("%d messages were submitted that nobody authenticated", n)
	case h.Trusted == nil && asked == 0:
		t.Errorf("Authenticate was never asked")
	case h.Trusted != nil && asked != 0:
		t.Errorf("Authenticate was asked %d times about peers that are trusted", asked)
	}
}

func transportOrder(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	const n = 12
	var burst []Said
	for i := range n {
		burst = append(burst, said("burst"+string(rune('a'+i)), fmt.Sprint(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for i, got := range b.h.Say(ctx, burst...) {
		if got != Taken {
			t.Fatalf("message %d of %d said at once is %s", i+1, n, got)
		}
	}
	for i, a := range b.arrivals(n) {
		if string(a.Message.Body) != fmt.Sprint(i) {
			t.Fatalf("message %s of %d was submitted at place %d", a.Message.Body, n, i)
		}
	}
}

func transportArrival(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for i, content := range transportContents() {
		s := said("content"+string(rune('a'+i)), content.body)
		s.ContentType = content.contentType
		b.want(content.what, s, Taken)
		m := b.arrivals(i + 1)[i].Message
		b.wantAddresses(content.what, m.From, m.Recipient)
		b.wantContent(content.what, m.ContentType, m.Body, content.contentType, content.body)
	}
}

func (b *transportBench) wantAddresses(what string, from, to message.Address) {
	b.Helper()
	if from != transportAlice || to != transportBob {
		b.Errorf("%s: it is from %s to %s, want it from %s to %s", what, from, to, transportAlice, transportBob)
	}
}

func (b *transportBench) wantContent(what, contentType string, body []byte, wantType, wantBody string) {
	b.Helper()
	if contentType != wantType {
		b.Errorf("%s: its type is %q, want %q", what, contentType, wantType)
	}
	if !bytes.Equal(body, []byte(wantBody)) {
		b.Errorf("%s: its body is %.300q (%d octets), want %.300q (%d)", what, body, len(body), wantBody, len(wantBody))
	}
}

func transportAccounts(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for i, sender := range []message.Address{transportAlice, transportCarol, transportAlice} {
		s := said("account"+string(rune('a'+i)), "hello")
		s.From = sender
		b.want("from "+sender.String(), s, Taken)
		got, want := b.arrivals(i + 1)[i].Account, b.account(sender)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("a message from %s carries the account\n\t%+v\nwant\n\t%+v", sender, got, want)
		}
	}
}

func transportRepeat(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for range 3 {
		b.want("said three times", said("same", "hello"), Taken)
	}
	arrivals := b.arrivals(1)
	for _, a := range arrivals {
		if a.Key != arrivals[0].Key {
			t.Errorf("the repeat of a message with the key %q has the key %q", arrivals[0].Key, a.Key)
		}
	}
}

func transportKeys(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	carols := said("one", "hello")
	carols.From = transportCarol
	seen := map[string]string{}
	for i, s := range []Said{said("one", "hello"), said("two", "hello"), said("three", "something else"), carols} {
		b.want("a new message", s, Taken)
		key := b.arrivals(i + 1)[i].Key
		what := fmt.Sprintf("message %q of %s", s.ID, s.From)
		if key == "" {
			t.Errorf("%s has no key", what)
		}
		if other, found := seen[key]; found {
			t.Errorf("%s has the same key as %s", what, other)
		}
		seen[key] = what
	}
}

// transportAcceptance says something that is accepted at once before it says
// what has to wait: nobody may take the one for the other.
func transportAcceptance(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	b.want("accepted at once", said("before", "hello"), Taken)
	ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	b.gate.holdNext()
	reply := b.sayLater(ctx, said("waits", "hello"))
	b.arrivals(2)
	select {
	case got := <-reply:
		t.Fatalf("before a message was accepted it is %s", got)
	case <-time.After(moment):
	}
	b.gate.letGo()
	if got := <-reply; got != Taken {
		t.Errorf("after a message was accepted it is %s, want it %s", got, Taken)
	}
}

func transportPipelining(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	b.gate.holdNext()
	replies := make(chan []Reply, 1)
	go func() { replies <- h.Say(ctx, said("waits", "hello"), said("next", "hello")) }()
	b.arrivals(2)
	b.gate.letGo()
	for i, got := range <-replies {
		if got != Taken {
			t.Errorf("message %d of 2, of which the first had to wait, is %s, want it %s", i+1, got, Taken)
		}
	}
}

// transportRefusals leaves out reasons that must not be told apart from others.
func transportRefusals(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	for _, test := range []struct {
		why  *message.Failure
		want Reply
	}{
		{message.Fail(message.Forbidden, "no"), Refused},
		{message.Fail(message.Rejected, "no"), Refused},
		{message.Fail(message.UnknownRecipient, "no"), Refused},
		{message.Fail(message.UnsupportedType, "no"), Refused},
		{message.Fail(message.TooLarge, "no"), Refused},
		{message.Fail(message.InsufficientFunds, "no"), Refused},
		{message.FailForNow(message.PolicyFailed, "not now"), Later},
		{message.FailForNow(message.ChargingFailed, "not now"), Later},
		{message.FailForNow(message.LimitReached, "not now"), Later},
		{message.FailForNow(message.Internal, "not now"), Later},
		{message.FailForNow(message.Overloaded, "not here"), Elsewhere},
		{message.FailForNow(message.Draining, "not here"), Elsewhere},
		{message.FailForNow(message.Standby, "not here"), Elsewhere},
		{message.FailForNow(message.StorageDown, "not here"), Elsewhere},
	} {
		b.gate.refuse(test.why)
		b.want(test.why.Error(), said(string(test.why.Reason), "hello"), test.want)
	}
}

// transportUnknown: a peer that hears nothing repeats itself, and its repeat joins
// what was kept, if anything was: its key is a matter of transportRepeat.
func transportUnknown(t T, h TransportHarness) {
	b := newTransportBench(t, h)
	const what = "nobody knows whether it was kept"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.gate.refuse(message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown))
	reply := b.sayLater(ctx, said("unknown", "hello"))
	b.arrivals(1)
	time.AfterFunc(moment, cancel)
	if got := <-reply; got != Silence {
		t.Errorf("%s: the message is %s, want it %s", what, got, Silence)
	}
	b.gate.refuse(nil)
	b.want(what+": said again", said("unknown", "hello"), Taken)
	b.arrivals(2)
}
