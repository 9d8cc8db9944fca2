//go:build interop

package main_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linxGnu/gosmpp"
	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/imgate/imgate/transports/smpp/smsc"
)

// TestGosmpp: gosmpp submits as fast as we answer, with so many requests under way,
// and all comes to a vendor: once, and in order.
func TestGosmpp(t *testing.T) {
	const messages, window, recipients = 2000, 50, 20
	g := newSMPP(t, "    window: 50\n")
	taken := collectAt(t, g.vendor)

	var refused atomic.Int64
	places := make(chan struct{}, window)
	session, err := gosmpp.NewSession(
		gosmpp.TRXConnector(gosmpp.NonTLSDialer, gosmpp.Auth{SMSC: g.door, SystemID: esmeID, Password: esmeSecret}),
		gosmpp.Settings{
			EnquireLink: 5 * time.Second, ReadTimeout: patience,
			OnAllPDU: func(p pdu.PDU) (pdu.PDU, bool) {
				if r, ok := p.(*pdu.SubmitSMResp); ok {
					if !r.IsOk() {
						refused.Add(1)
					}
					<-places
				}
				return nil, false
			},
		}, -1)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := range messages {
		select {
		case places <- struct{}{}:
		case <-time.After(patience):
			t.Fatalf("message %d isn't answered", n-window)
		}
		if err := session.Transceiver().Submit(submitSM(t, n%recipients, fmt.Sprintf("%d %d", n%recipients, n))); err != nil {
			t.Fatal(err)
		}
	}
	for range window {
		places <- struct{}{} // all are answered
	}
	t.Logf("%d messages are accepted in %v", messages, time.Since(began))
	if n := refused.Load(); n > 0 {
		t.Errorf("%d messages are refused", n)
	}
	if !until(func() bool { return taken.count() >= messages }) {
		t.Errorf("%d messages arrive, want %d", taken.count(), messages)
	}
	taken.check(t, messages, recipients)
	if err := session.Close(); err != nil {
		t.Logf("the end: %v", err) // it may find that we have hung up before it does
	}
}

func submitSM(t *testing.T, recipient int, text string) *pdu.SubmitSM {
	t.Helper()
	p := pdu.NewSubmitSM().(*pdu.SubmitSM)
	var err error
	if p.SourceAddr, err = pdu.NewAddressWithTonNpiAddr(1, 1, esmeNumber); err != nil {
		t.Fatal(err)
	}
	if p.DestAddr, err = pdu.NewAddressWithTonNpiAddr(1, 1, fmt.Sprintf("43664100%05d", recipient)); err != nil {
		t.Fatal(err)
	}
	if err := p.Message.SetMessageWithEncoding(text, data.GSM7BIT); err != nil {
		t.Fatal(err)
	}
	return p
}

// vendorBox is what a SMSC of ours took, in order.
type vendorBox struct {
	mu    sync.Mutex
	texts []string
}

// collectAt runs a SMSC of ours, until the test ends.
func collectAt(t *testing.T, address string) *vendorBox {
	t.Helper()
	box := &vendorBox{}
	center, err := smsc.Listen(t.Context(), smsc.Config{Listen: address, Receipts: -1, Took: func(m smsc.Message) {
		box.mu.Lock()
		defer box.mu.Unlock()
		box.texts = append(box.texts, string(m.Body))
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		center.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return box
}

func (b *vendorBox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.texts)
}

// check checks that n messages are there, those to each recipient in order.
func (b *vendorBox) check(t *testing.T, n, recipients int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.texts) != n {
		t.Errorf("%d messages, want %d", len(b.texts), n)
	}
	next := make([]int, recipients)
	for _, text := range b.texts {
		var to, number int
		if _, err := fmt.Sscanf(text, "%d %d", &to, &number); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if number != next[to]*recipients+to {
			t.Fatalf("to %d comes %d when %d is due", to, number, next[to]*recipients+to)
		}
		next[to]++
	}
}
