package plugintest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Reply is how one side of a transport answers the other, as far as any
// protocol can say it.
type Reply string

// The replies.
const (
	Taken     Reply = "taken"               // accepted or delivered
	Refused   Reply = "refused for good"    // this message, whenever it comes
	Later     Reply = "refused for now"     // this message; to try it again may help
	Elsewhere Reply = "refused by the node" // any message: another node may take it
	Silence   Reply = "not answered"
)

// Said is a message that a peer hands to the transport.
type Said struct {
	// ID tells the sender's messages apart, [a-z-]+. What is said with the same ID
	// again is a repeat, as of a peer that had no answer the first time: in a new
	// transaction, perhaps on a new connection.
	ID          string
	From        message.Address
	Secret      string // the sender proves itself with it; its digest username is From's user, its realm From's domain, its system_id From
	To          message.Address
	ContentType string
	Body        []byte
}

// Heard is a message that the transport handed to a peer, as the peer reads it.
type Heard struct {
	// Reference is by what the peer would know a repeat of the same delivery.
	Reference   string
	From        message.Address
	To          message.Address
	ContentType string
	Body        []byte
	Headers     []message.Header // all that the peer finds in it besides, under the protocol's names
}

// TransportHarness is a transport under test, with the peers that it serves.
type TransportHarness struct {
	// Open opens the transport. In one harness it is always opened on the same
	// address, and opened again only when Serve of the one before has returned,
	// or if that one is never served.
	Open func(t T) plugin.Transport

	// Say makes a peer hand in messages of one sender, one right behind the
	// other on one connection without waiting for the answers in between. It
	// returns how each was answered: Silence if nobody is there, or ctx ended
	// first. It is called from several goroutines at once. Nil: nothing comes in
	// through this transport, see SendingTransport.
	Say func(ctx context.Context, messages ...Said) []Reply

	// Register makes a peer register aor. Nil: peers of this transport don't
	// register.
	Register func(ctx context.Context, aor message.Address, secret string) Reply

	// Trusted returns the account that an arrival of a sender carries, if the
	// transport trusts its peers. Nil: it asks Gate.Authenticate about each.
	Trusted func(sender message.Address) plugin.Account

	// Route makes a peer and returns the way to it, without a Reference. hear is
	// called once for each attempt that reaches the peer, not for what the
	// protocol itself repeats in one attempt, and returns how the peer answers;
	// Silence: it doesn't. It may block, though not beyond the case, and is to be
	// called from a goroutine for each attempt.
	Route func(t T, hear func(Heard) Reply) plugin.Route
}

// Transport checks a plugin against the contract of plugin.Transport.
func Transport(t *testing.T, harness func(T) TransportHarness) {
	run(t, transportCases(), harness)
}

// SendingTransport checks a plugin through which nothing comes in, so that its
// harness has no Say: what the contract says of its opening and of Send.
func SendingTransport(t *testing.T, harness func(T) TransportHarness) {
	run(t, append(openCases(), sendCases()...), harness)
}

func transportCases() []Case[TransportHarness] {
	return slices.Concat(openCases(), serveCases(), sendCases())
}

const (
	// soon is how long something may take that takes milliseconds by design.
	soon = 3 * time.Second
	// moment is how long something is watched that should not happen.
	moment = 200 * time.Millisecond
	// patience is how long somebody waits for an answer that can't come.
	patience = 20 * time.Millisecond
)

// Who is there: two senders with their accounts, and a recipient.
var (
	transportAlice = message.Address{User: "alice", Host: "a.example"}
	transportCarol = message.Address{User: "carol", Host: "a.example"}
	transportBob   = message.Address{User: "bob", Host: "b.example"}
)

const (
	transportText   = "text/plain;charset=utf-8"
	transportBinary = "application/octet-stream"
)

// transportContents are what must pass unchanged, either way.
func transportContents() []struct{ what, contentType, body string } {
	octets := make([]byte, 256)
	for i := range octets {
		octets[i] = byte(i)
	}
	long := make([]byte, 10<<10)
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	return []struct{ what, contentType, body string }{
		{"a word", transportText, "hello"},
		{"text beyond ASCII", transportText, "grüße, שלום, 你好 👋"},
		{"all 256 octets", transportBinary, string(octets)},
		{"empty lines and what looks like an end", transportText, "\r\n\r\none\r\n\r\n.\r\n\n\ntwo: three\r\n\r\n"},
		{"10 KB", transportText, string(long)},
	}
}

// transportBench is a case at work: a transport that is served, the engine
// behind it, and the means to drive both sides.
type transportBench struct {
	T
	h    TransportHarness
	gate *transportGate
	door plugin.Transport
	stop context.CancelFunc // ends Serve's context
	end  <-chan struct{}    // closed when Serve has returned
	err  error              // what it returned; to be read after end
}

// newTransportBench opens a transport that works: so that a case sees its own
// matter only, a message has got through when it begins.
func newTransportBench(t T, h TransportHarness) *transportBench {
	t.Helper()
	b := &transportBench{T: t, h: h}
	b.open()
	b.greet()
	return b
}

// greet says something until it gets through, and forgets it.
func (b *transportBench) greet() {
	b.Helper()
	if b.h.Say == nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for b.sayNow(ctx, said("greeting", "hello")) != Taken {
		if ctx.Err() != nil {
			b.Fatalf("the transport lets nothing in")
		}
		<-pause.C
	}
	b.gate.forget()
}

// open opens a transport, serves it behind a gate of its own, and waits until
// it is ready.
func (b *transportBench) open() {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	gate, door, end := newTransportGate(), b.h.Open(b), make(chan struct{})
	b.gate, b.door, b.stop, b.end = gate, door, stop, end
	go func() {
		defer close(end)
		b.err = door.Serve(ctx, gate)
	}()
	b.Cleanup(func() { // whether and how it ends is for cases of their own
		gate.letGo()
		stop()
		within(moment, end)
	})
	select {
	case <-gate.ready:
	case <-end:
		b.Fatalf("Serve returned before it called Ready: %v", b.err)
	case <-time.After(soon):
		b.Fatalf("Serve has not called Ready within %s", soon)
	}
}

// close ends Serve's context and wants Serve to return.
func (b *transportBench) close() {
	b.Helper()
	b.stop()
	if !within(soon, b.end) {
		b.Fatalf("Serve has not returned within %s after the end of its context", soon)
	}
}

// within waits for the end of something and tells whether it came in time.
func within[V any](limit time.Duration, end <-chan V) bool {
	select {
	case <-end:
		return true
	case <-time.After(limit):
		return false
	}
}

// said is a message of alice's to bob.
func said(id, body string) Said {
	return Said{
		ID: id, From: transportAlice, Secret: transportSecret, To: transportBob,
		ContentType: transportText, Body: []byte(body),
	}
}

// sayNow says one message.
func (b *transportBench) sayNow(ctx context.Context, s Said) Reply {
	if b.h.Say == nil {
		return Silence
	}
	replies := b.h.Say(ctx, s)
	if len(replies) != 1 {
		return Silence
	}
	return replies[0]
}

// say says one message and waits for the answer.
func (b *transportBench) say(s Said) Reply {
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	return b.sayNow(ctx, s)
}

// sayLater says one message and doesn't wait. Once ctx has ended there is an
// answer, be it Silence.
func (b *transportBench) sayLater(ctx context.Context, s Said) <-chan Reply {
	reply := make(chan Reply, 1)
	go func() { reply <- b.sayNow(ctx, s) }()
	return reply
}

// want says one message and wants a certain answer.
func (b *transportBench) want(what string, s Said, want Reply) {
	b.Helper()
	if got := b.say(s); got != want {
		b.Errorf("%s: the message is %s, want it %s", what, got, want)
	}
}

// arrivals waits until so many messages were submitted, and returns them all.
func (b *transportBench) arrivals(n int) []plugin.Arrival {
	b.Helper()
	deadline := time.After(soon)
	for {
		if arrivals := b.gate.submitted(); len(arrivals) >= n {
			return arrivals
		}
		select {
		case <-b.gate.submits:
		case <-deadline:
			b.Fatalf("%d messages were submitted within %s, want %d", len(b.gate.submitted()), soon, n)
		}
	}
}

// account is the one that an arrival of a sender must carry.
func (b *transportBench) account(sender message.Address) plugin.Account {
	if b.h.Trusted != nil {
		return b.h.Trusted(sender)
	}
	return transportAccount(sender)
}
