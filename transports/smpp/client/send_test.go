package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// took are the texts that an SMSC has taken.
type took struct {
	mu    sync.Mutex
	texts []string
}

func (k *took) take(m smsc.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.texts = append(k.texts, string(m.Body))
}

func (k *took) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.texts...)
}

func TestSend(t *testing.T) {
	var texts took
	b := work(t, smsc.Config{Took: texts.take}, nil)
	receipt, err := b.send(sms("grüße"), routeTo())
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Final || len(receipt.PeerIDs) != 0 {
		t.Errorf("without receipts the receipt is %+v", receipt)
	}
	if got := texts.all(); len(got) != 1 || got[0] != "grüße" {
		t.Errorf("the SMSC has taken %q", got)
	}
}

// long is a text that goes in parts.
var long = strings.Repeat("0123456789", 40)

func inParts(c *Config) { c.Dialect.Text.Long = "udh" }

func withReceipts(c *Config) { c.Dialect.Receipts = "final" }

func TestReceiptNamesEachPart(t *testing.T) {
	var texts took
	b := work(t, smsc.Config{Took: texts.take, Receipts: time.Millisecond}, func(c *Config) { inParts(c); withReceipts(c) })
	receipt, err := b.send(sms(long), routeTo())
	if err != nil || len(receipt.PeerIDs) != 3 {
		t.Fatalf("Send returned %+v, %v; want three names", receipt, err)
	}
	if got := texts.all(); len(got) != 1 || got[0] != long {
		t.Errorf("the SMSC has taken %q", got)
	}
	b.gate.await(t, "each part is reported", func() bool { return len(b.gate.reports) == 3 })
	for _, r := range b.gate.reports {
		if !r.status.Delivered || !strings.Contains(strings.Join(receipt.PeerIDs, " "), r.id) {
			t.Errorf("reported was %+v, of %q", r, receipt.PeerIDs)
		}
	}
}

func TestUnavailableWithoutBind(t *testing.T) {
	b := newBench(t, smsc.Config{Bind: func(*wire.Bind) pdu.Status { return wire.RBindFail }})
	b.open(plugin.Env{Instance: "vendor"}, nil)
	route := routeTo()
	route.Progress = []byte("kept")
	receipt, err := b.send(sms("hello"), route)
	wantFailure(t, err, message.Unavailable, true)
	if string(receipt.Progress) != "kept" {
		t.Errorf("the progress is %q", receipt.Progress)
	}
}

func TestReceiverDoesNotSend(t *testing.T) {
	b := work(t, smsc.Config{}, func(c *Config) { c.Bind = "receiver" })
	_, err := b.send(sms("hello"), routeTo())
	wantFailure(t, err, message.Unavailable, true)
}

// TestThrottledIsTriedAgain: no part is lost, none overtakes another, and the
// SMSC gets less than it could.
func TestThrottledIsTriedAgain(t *testing.T) {
	var texts took
	b := work(t, smsc.Config{
		Took: texts.take,
		Answer: func(s smsc.Submit) smsc.Answer {
			switch s.Number {
			case 1:
				return smsc.Answer{Status: wire.RThrottled}
			case 3:
				return smsc.Answer{Status: wire.RMsgQFul}
			}
			return smsc.Answer{}
		},
	}, inParts)
	began := time.Now()
	if _, err := b.send(sms(long), routeTo()); err != nil {
		t.Fatal(err)
	}
	if got := texts.all(); len(got) != 1 || got[0] != long {
		t.Errorf("the SMSC has taken %q", got)
	}
	if n := b.count(pdu.SubmitSMID); n != 5 {
		t.Errorf("three parts of which two were throttled took %d PDUs", n)
	}
	if time.Since(began) < firstPause {
		t.Errorf("it was tried again after %s", time.Since(began))
	}
	if n := b.client.metrics.submitted[answerThrottled].Value(); n != 2 {
		t.Errorf("throttled are counted %d times", n)
	}
}

func TestThrottledForTooLong(t *testing.T) {
	var submits atomic.Int64
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer {
		submits.Add(1)
		return smsc.Answer{Status: wire.RThrottled}
	}}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), spare+firstPause+firstPause/2)
	defer cancel()
	_, err := b.client.Send(ctx, sms("hello"), routeTo())
	f := wantFailure(t, err, message.Overloaded, true)
	if f.RetryAfter <= 0 {
		t.Errorf("nothing says when to try again")
	}
	if n := submits.Load(); n < 1 || n > 2 {
		t.Errorf("it was sent %d times", n)
	}
	if ctx.Err() != nil {
		t.Errorf("it took all the time there was")
	}
}

func TestStatusesByTable(t *testing.T) {
	status := wire.ROK
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Status: status} }}, func(c *Config) {
		c.Errors.Temporary = []translate.Code{translate.Code(wire.RInvSrcAdr)}
		c.Errors.Permanent = []translate.Code{translate.Code(wire.RMsgQFul)}
	})
	for _, c := range []struct {
		status    pdu.Status
		reason    message.Reason
		temporary bool
	}{
		{wire.RInvDstAdr, message.UnknownRecipient, false},
		{wire.RSysErr, message.Undelivered, true},
		{wire.RInvSrcAdr, message.Forbidden, true},
		{wire.RMsgQFul, message.Undelivered, false},
	} {
		status = c.status
		_, err := b.send(sms("hello"), routeTo())
		wantFailure(t, err, c.reason, c.temporary)
	}
}

func TestNoAnswerWhenTheBindIsLost(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Drop: true} }}, nil)
	_, err := b.send(sms("hello"), routeTo())
	wantFailure(t, err, message.NoAnswer, true)
}

func TestNoAnswerInTime(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Silent: true} }}, func(c *Config) {
		c.Response = 50 * time.Millisecond
	})
	_, err := b.send(sms("hello"), routeTo())
	wantFailure(t, err, message.NoAnswer, true)
}

// TestPartlySent: what was taken isn't sent again, and each part is named once.
func TestPartlySent(t *testing.T) {
	var texts took
	b := work(t, smsc.Config{Took: texts.take, Answer: func(s smsc.Submit) smsc.Answer {
		if s.Number == 2 {
			return smsc.Answer{Status: wire.RSysErr}
		}
		return smsc.Answer{MessageID: fmt.Sprint(s.Number)}
	}}, func(c *Config) { inParts(c); withReceipts(c) })
	m, route := sms(long), routeTo()
	first, err := b.send(m, route)
	wantFailure(t, err, message.Undelivered, true)
	if len(first.PeerIDs) != 1 || len(first.Progress) == 0 || len(first.Progress) > 256 {
		t.Fatalf("after one of three parts the receipt is %+v", first)
	}
	route.Progress = first.Progress
	second, err := b.send(m, route)
	if err != nil || len(second.PeerIDs) != 2 {
		t.Fatalf("the second attempt: %+v, %v", second, err)
	}
	if n := b.count(pdu.SubmitSMID); n != 4 {
		t.Errorf("three parts of which one was refused once took %d PDUs", n)
	}
	if got := texts.all(); len(got) != 1 || got[0] != long {
		t.Errorf("the SMSC has taken %q", got)
	}
}

func TestProgressOfOtherParts(t *testing.T) {
	b := work(t, smsc.Config{}, inParts)
	route := routeTo()
	parts, err := b.client.config.Dialect.Outgoing(sms(long), route, pdu.SubmitSMID)
	if err != nil {
		t.Fatal(err)
	}
	good := progress(2, parts)
	if n := takenOf(good, parts); n != 2 {
		t.Errorf("%d parts were taken, want 2", n)
	}
	others, err := b.client.config.Dialect.Outgoing(sms(long+"!"), route, pdu.SubmitSMID)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "too short": good[:5], "of later": append([]byte{2}, good[1:]...), "too many": progress(3, parts)[:2],
	} {
		if n := takenOf(bad, parts); n != 0 {
			t.Errorf("%s: %d parts were taken, want none", name, n)
		}
	}
	if n := takenOf(good, others); n != 0 {
		t.Errorf("of other parts %d were taken", n)
	}
}

func TestRoundRobin(t *testing.T) {
	var mu sync.Mutex
	used := map[*wire.Session]int{}
	b := work(t, smsc.Config{Answer: func(s smsc.Submit) smsc.Answer {
		mu.Lock()
		defer mu.Unlock()
		used[s.Session]++
		return smsc.Answer{}
	}}, func(c *Config) { c.Binds = 3 })
	for range 9 {
		if _, err := b.send(sms("hello"), routeTo()); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(used) != 3 {
		t.Errorf("%d of three binds were used", len(used))
	}
	for _, n := range used {
		if n != 3 {
			t.Errorf("a bind was used %d times of 9", n)
		}
	}
}

func TestBindThatDiesFailsOnlyItsOwn(t *testing.T) {
	var silent atomic.Pointer[wire.Session]
	b := work(t, smsc.Config{Answer: func(s smsc.Submit) smsc.Answer {
		return smsc.Answer{Silent: silent.CompareAndSwap(nil, s.Session) || silent.Load() == s.Session}
	}}, func(c *Config) { c.Binds = 2 })
	lost := make(chan error, 1)
	go func() {
		_, err := b.send(sms("lost"), routeTo())
		lost <- err
	}()
	b.until("a message waits for its answer", func() bool { return silent.Load() != nil })
	silent.Load().Close()
	wantFailure(t, <-lost, message.NoAnswer, true)
	if _, err := b.send(sms("hello"), routeTo()); err != nil {
		t.Errorf("over the other bind: %v", err)
	}
	b.awaitBinds(2)
}

// TestWaitingMessageTakesAnotherBind: what waits for a place in the window of a
// bind that ends wasn't sent.
func TestWaitingMessageTakesAnotherBind(t *testing.T) {
	var texts took
	release := make(chan struct{})
	held := make(chan *wire.Session, 2)
	b := work(t, smsc.Config{Took: texts.take, Answer: func(s smsc.Submit) smsc.Answer {
		if s.Number > 2 {
			return smsc.Answer{}
		}
		held <- s.Session
		return smsc.Answer{Until: release}
	}}, func(c *Config) {
		c.Binds, c.Window = 2, 1
		c.Reconnect = Reconnect{Min: time.Minute, Max: time.Minute}
	})
	var sending sync.WaitGroup
	results := make([]error, 4)
	for i := range results {
		sending.Go(func() { _, results[i] = b.send(sms("hello"), routeTo()) })
		b.until("it is under way", func() bool { return b.client.waiting.Load() == int64(i+1) })
	}
	first := <-held
	<-held
	first.Close() // with one message, and one that waits
	b.until("the bind is gone", func() bool { return b.client.binds.count(true) == 1 })
	close(release)
	sending.Wait()
	lost := 0
	for _, err := range results {
		if err != nil {
			wantFailure(t, err, message.NoAnswer, true)
			lost++
		}
	}
	if lost != 1 || len(texts.all()) != 3 {
		t.Errorf("of four messages %d have no answer and %d were taken", lost, len(texts.all()))
	}
}

// TestWindowBlocks: what doesn't fit waits, no longer than it likes.
func TestWindowBlocks(t *testing.T) {
	var texts took
	release := make(chan struct{})
	b := work(t, smsc.Config{Took: texts.take, Answer: func(s smsc.Submit) smsc.Answer {
		if s.Number == 1 {
			return smsc.Answer{Until: release}
		}
		return smsc.Answer{}
	}}, func(c *Config) { c.Window = 1 })
	var sending sync.WaitGroup
	results := make([]error, 3)
	for i, text := range []string{"one", "two", "three"} {
		sending.Go(func() { _, results[i] = b.send(sms(text), routeTo()) })
		b.until("it is under way", func() bool { return b.client.waiting.Load() == int64(i+1) })
		b.until("the first was sent", func() bool { return b.count(pdu.SubmitSMID) == 1 })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.client.Send(ctx, sms("impatient"), routeTo())
	wantFailure(t, err, message.Unavailable, true)
	close(release)
	sending.Wait()
	if err := errors.Join(results...); err != nil {
		t.Error(err)
	}
	got := texts.all()
	slices.Sort(got)
	if strings.Join(got, " ") != "one three two" {
		t.Errorf("the SMSC has taken %q", got)
	}
}

func TestQueueIsBounded(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Silent: true} }}, func(c *Config) {
		c.Queue = 1
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := b.client.Send(ctx, sms("one"), routeTo())
		done <- err
	}()
	b.until("one is under way", func() bool { return b.count(pdu.SubmitSMID) == 1 })
	_, err := b.send(sms("two"), routeTo())
	wantFailure(t, err, message.Overloaded, true)
	cancel()
	wantFailure(t, <-done, message.NoAnswer, true)
}

func FuzzProgress(f *testing.F) {
	dialect := translate.Defaults()
	dialect.Text.Long = "udh"
	parts, err := dialect.Outgoing(sms(long), plugin.Route{Reference: "r"}, pdu.SubmitSMID)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(progress(2, parts))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := takenOf(b, parts)
		if n < 0 || n > len(parts) {
			t.Errorf("%d of %d parts were taken", n, len(parts))
		}
		if n > 0 && string(progress(n, parts)) != string(b) {
			t.Errorf("%x means %d parts, which is written as %x", b, n, progress(n, parts))
		}
	})
}
