package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func parsed(t testing.TB, callID string) *Request {
	t.Helper()
	r, _, refusal := Parse(fmt.Appendf(nil, "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %s\r\nCSeq: 1 MESSAGE\r\n\r\n", callID), maxBody)
	if refusal != nil {
		t.Fatal(refusal)
	}
	r.Flow = testFlow
	return r
}

func TestServerTable(t *testing.T) {
	table := newServerTable(testNow, 2, 2*shards)
	a, b, c := table.key(parsed(t, "a")), table.key(parsed(t, "b")), table.key(parsed(t, "c"))
	again := table.key(parsed(t, "a"))
	if a == b || a != again || table.tag(a) != table.tag(again) || table.tag(a) == table.tag(b) {
		t.Error("keys or tags are not what they should be")
	}
	if _, _, found := table.find(a, testNow); found {
		t.Error("found before it began")
	}
	if table.begin(a) != nil || table.begin(b) != nil {
		t.Fatal("refused")
	}
	if err := table.begin(c); err != ErrFull {
		t.Errorf("over the limit: %v", err)
	}
	if o, _, found := table.find(a, testNow); !found || o != trying {
		t.Errorf("trying: %v %t", o, found)
	}
	table.finish(a, finished(&Reply{Status: 480, RetryAfter: 1500 * time.Millisecond}), nil, testNow)
	if err := table.begin(a); err != ErrRepeated {
		t.Errorf("again: %v", err)
	}
	o, kept, found := table.find(a, testNow.Add(timerJ))
	if !found || kept != nil || o.status() != 480 || o.retryAfter() != 2*time.Second {
		t.Errorf("finished: %d %v %t", o.status(), o.retryAfter(), found)
	}
	if _, _, found = table.find(a, testNow.Add(timerJ+2*time.Second)); found {
		t.Error("still there after Timer J")
	}
	table.finish(b, finished(&Reply{Status: 200}), []byte("whole"), testNow)
	if _, kept, _ := table.find(b, testNow); string(kept) != "whole" {
		t.Errorf("kept %q", kept)
	}
	if err := table.begin(c); err != nil {
		t.Fatal(err)
	}
	table.abandon(c)
	if _, _, found = table.find(c, testNow); found || table.pending.Load() != 0 {
		t.Error("abandoned and still there")
	}
}

func TestServerTableForgetsTheOldest(t *testing.T) {
	table := newServerTable(testNow, 10, 2*shards) // two in a shard
	keys := []key{{1, 0}, {2, 0}, {3, 0}}
	for _, k := range keys {
		if err := table.begin(k); err != nil {
			t.Fatal(err)
		}
		table.finish(k, finished(&Reply{Status: 202}), nil, testNow)
	}
	for i, want := range []bool{false, true, true} {
		if _, _, found := table.find(keys[i], testNow); found != want {
			t.Errorf("transaction %d: %t", i, found)
		}
	}
}

// TestServerTableKeepsSoMuch: large responses push each other out, so that
// nobody fills the memory with them.
func TestServerTableKeepsSoMuch(t *testing.T) {
	table := newServerTable(testNow, 10, 100*shards)
	whole := make([]byte, maxKept/2)
	keys := []key{{1, 0}, {2, 0}, {3, 0}}
	for _, k := range keys {
		if err := table.begin(k); err != nil {
			t.Fatal(err)
		}
		table.finish(k, finished(&Reply{Status: 200}), whole, testNow)
	}
	for i, want := range []bool{false, true, true} {
		if _, kept, found := table.find(keys[i], testNow); found != want || (kept != nil) != want {
			t.Errorf("transaction %d: %t, %d octets", i, found, len(kept))
		}
	}
	table.find(keys[0], testNow.Add(timerJ+2*time.Second))
	if s := &table.shards[0]; s.octets != 0 || len(s.kept) != 0 {
		t.Errorf("%d octets of %d responses left", s.octets, len(s.kept))
	}
}

func TestQueue(t *testing.T) {
	var q queue
	next, want := uint32(0), uint32(0)
	for round := range 100 {
		for range round {
			q.push(ending{at: next})
			next++
		}
		for range round - round/7 {
			if q.n == 0 {
				break
			}
			if got := q.pop().at; got != want {
				t.Fatalf("got %d, want %d", got, want)
			}
			want++
		}
	}
}

// TestFinishedTransactionIsSmall: a finished transaction costs less than 120
// octets, so that 32 s at 12,000 a second stay under 50 MB.
func TestFinishedTransactionIsSmall(t *testing.T) {
	const n = 400_000
	before := memory()
	table := newServerTable(testNow, n, 2*n)
	for i := range uint64(n) {
		k := key{i * 0x9e3779b97f4a7c15, i * 0xbf58476d1ce4e5b9}
		if err := table.begin(k); err != nil {
			t.Fatal(err)
		}
		table.finish(k, finished(&Reply{Status: 200}), nil, testNow)
	}
	each := float64(memory()-before) / n
	t.Logf("%.0f octets each", each)
	if each > 120 {
		t.Errorf("%.0f octets each", each)
	}
	runtime.KeepAlive(table)
}

var testOutgoing = Outgoing{
	Method: "MESSAGE", URI: "sip:1002@192.0.2.1:5070", From: "<sip:1001@sip.example.com>;tag=x", To: "<sip:1002@sip.example.com>",
	CallID: "ref", CSeq: 1, MaxForwards: 69, Headers: []Header{{"Content-Type", "text/plain"}}, Body: []byte("hello"),
}

var testWay = &way{flow: testFlow, transport: "UDP", sentBy: "192.0.2.9:5060", limit: MaxDatagram, tooLarge: ErrNeedsStream}

// answer makes the response that a peer would send to a request of ours.
func answer(t testing.TB, packet []byte, status int) *Response {
	t.Helper()
	request, _, refusal := Parse(packet, maxBody)
	if refusal != nil {
		t.Fatalf("we sent %q: %v", packet, refusal)
	}
	request.Flow = testFlow
	reply, err := AppendReply(nil, request, Reply{Status: status}, "theirs")
	if err != nil {
		t.Fatal(err)
	}
	_, response, refusal := Parse(reply, maxBody)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return response
}

func TestClientTimers(t *testing.T) {
	tests := []struct {
		name     string
		respond  map[int]int // by number of the transmission: the status that comes back
		sent     string      // when we sent, in milliseconds
		status   int
		err      error
		deadline time.Duration
	}{
		{name: "answered at once", respond: map[int]int{1: 200}, sent: "0", status: 200},
		{name: "answered after repeats", respond: map[int]int{3: 480}, sent: "0 500 1500", status: 480},
		{name: "silence", sent: "0 500 1500 3500 7500 11500 15500 19500 23500 27500 31500", err: ErrTimeout},
		{name: "provisional", respond: map[int]int{1: 100, 3: 200}, sent: "0 500 4500", status: 200},
		{name: "context ends", sent: "0 500", err: context.DeadlineExceeded, deadline: time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, start := newClientTable(), time.Now()
				var sent []string
				send := func(packet []byte) error {
					sent = append(sent, fmt.Sprint(time.Since(start).Milliseconds()))
					if status := test.respond[len(sent)]; status != 0 {
						table.deliver(answer(t, packet, status), testWay.flow)
					}
					return nil
				}
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				o := testOutgoing
				response, err := table.do(ctx, &o, testWay, send)
				if !errors.Is(err, test.err) || err == nil && response.Status != test.status {
					t.Errorf("%v, %v", response, err)
				}
				if got := strings.Join(sent, " "); got != test.sent {
					t.Errorf("sent at %s ms, want %s", got, test.sent)
				}
			})
		})
	}
}

// TestClientTakesTheLastAnswer: an answer counts though its connection ended
// right behind it, whichever is seen first.
func TestClientTakesTheLastAnswer(t *testing.T) {
	for _, test := range []struct {
		status int
		err    error
	}{{200, nil}, {100, ErrNoFlow}, {0, ErrNoFlow}} {
		for range 100 {
			table, gone := newClientTable(), make(chan struct{})
			w := *testWay
			w.gone = gone
			o := testOutgoing
			response, err := table.do(t.Context(), &o, &w, func(packet []byte) error {
				if test.status != 0 {
					table.deliver(answer(t, packet, test.status), testWay.flow)
				}
				close(gone)
				return nil
			})
			if err != test.err || err == nil && response.Status != test.status {
				t.Fatalf("%d: %v, %v", test.status, response, err)
			}
		}
	}
}

func TestClientIgnoresStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newClientTable()
		var late *Response
		send := func(packet []byte) error {
			late = answer(t, packet, 200)
			for _, change := range []func(*Response){
				func(r *Response) { r.Branch = "z9hG4bKother" },
				func(r *Response) { r.Branch = r.Branch[:len(r.Branch)-1] + "!" },
				func(r *Response) { r.Method = "REGISTER" },
				func(r *Response) { r.CSeq++ },
			} {
				stranger := *late
				stranger.Status = 403
				change(&stranger)
				if table.deliver(&stranger, testWay.flow) {
					t.Error("a stranger's response was taken")
				}
			}
			if table.deliver(late, Flow{Network: "udp", Remote: netip.MustParseAddrPort("192.0.2.78:5070")}) {
				t.Error("a stranger's response was taken, from elsewhere")
			}
			if !table.deliver(late, testWay.flow) || table.deliver(late, testWay.flow) {
				t.Error("the response is to be taken once")
			}
			return nil
		}
		o := testOutgoing
		if response, err := table.do(t.Context(), &o, testWay, send); err != nil || response.Status != 200 {
			t.Errorf("%v, %v", response, err)
		}
		if table.deliver(late, testWay.flow) {
			t.Error("a late response was taken")
		}
	})
}

func TestClientRefusesWhatCantBeSent(t *testing.T) {
	failing := errors.New("no way")
	tests := []struct {
		name   string
		change func(*Outgoing)
		err    error
	}{
		{"too large", func(o *Outgoing) { o.Body = make([]byte, MaxDatagram) }, ErrNeedsStream},
		{"unsafe", func(o *Outgoing) { o.CallID = "a\r\nb" }, ErrUnsafe},
		{"write error", func(*Outgoing) {}, failing},
	}
	for _, test := range tests {
		o := testOutgoing
		test.change(&o)
		_, err := newClientTable().do(t.Context(), &o, testWay, func([]byte) error { return failing })
		if err != test.err {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
