//go:build process

package main_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua"
)

const (
	senders    = 20
	recipients = 25
	perPair    = 10 // 20 * 25 * 10 = 5,000 messages
)

// TestKilledInTheMiddle sends 5,000 messages to users who are offline and
// kills the server twice without warning: while it takes them and while it
// delivers them. Everything that was answered 202 must arrive, in order, and
// once, but for what was under way at the second kill; the money must add up.
func TestKilledInTheMiddle(t *testing.T) {
	s := newServer(t, "")
	s.start()
	from, to := numbered("from", senders), numbered("to", recipients)
	s.importAccounts(append(slices.Clone(from), to...))

	accepted, unsure := sendAll(t, s, from, to)
	box := newMailbox()
	listenAll(t, s, to, box)
	deadline := time.Now().Add(2 * time.Minute)
	for box.distinct() < len(accepted) && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond) // polling other processes
	}

	duplicates := box.check(t, accepted)
	t.Logf("%d accepted, %d sent anew because their answer was lost, %d arrived, %d of them twice", len(accepted), unsure, box.distinct(), duplicates)
	// The last commit interval: at most what one batch of the committer holds.
	if duplicates > 200 {
		t.Errorf("%d messages arrived twice: more than were under way", duplicates)
	}
	checkMoney(t, s, books{accounts: senders + recipients, balance: 100 * plugin.Unit, messages: len(accepted), most: len(accepted) + unsure})
}

// sendAll sends every sender's messages and kills the server once half of
// them are answered. Requests that are under way then are repeated by their
// senders, as SIP wants it. Where a sender learns of the dead server at once
// it can't know what became of its request, and sends a new one: unsure counts
// these.
func sendAll(t *testing.T, s *server, from, to []string) (accepted map[string]bool, unsure int) {
	var mu sync.Mutex
	accepted = map[string]bool{}
	var answered atomic.Int64
	half := make(chan struct{})
	var all sync.WaitGroup
	for _, sender := range from {
		all.Go(func() {
			agent := dial(t, s, sender, nil)
			defer agent.Close()
			for n := range perPair {
				for _, recipient := range to {
					body := fmt.Sprintf("%s %s %d", sender, recipient, n)
					again, ok := sendOne(t, agent, recipient, body)
					if !ok {
						return
					}
					mu.Lock()
					unsure += again
					accepted[body] = true
					mu.Unlock()
					if answered.Add(1) == senders*recipients*perPair/2 {
						close(half)
					}
				}
			}
		})
	}
	select {
	case <-half:
	case <-time.After(2 * time.Minute):
		t.Fatalf("only %d messages are answered", answered.Load())
	}
	s.kill()
	s.start()
	all.Wait()
	if len(accepted) != senders*recipients*perPair {
		t.Fatalf("%d messages are accepted, want all", len(accepted))
	}
	return accepted, unsure
}

// sendOne sends a message until it is accepted, as a person would, and tells
// how often nobody could say what became of it.
func sendOne(t *testing.T, agent *ua.Agent, recipient, body string) (unsure int, ok bool) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	to := message.Address{User: recipient, Host: "sip.example.com"}
	for ctx.Err() == nil {
		result, err := agent.Message(ctx, to, "text/plain", []byte(body), ua.Options{})
		switch {
		case err == nil && result.Code == 202:
			return unsure, true
		case err == nil && result.Code < 500:
			t.Errorf("%s is answered %d %s", body, result.Code, result.Reason)
			return unsure, false
		case err != nil:
			unsure++
		}
		time.Sleep(100 * time.Millisecond) // the server is down: another process
	}
	t.Errorf("%s is never accepted", body)
	return unsure, false
}

// listenAll registers every recipient. In the middle of the delivery it kills
// the server.
func listenAll(t *testing.T, s *server, to []string, box *mailbox) {
	agents := make([]*ua.Agent, len(to))
	for i, recipient := range to {
		agents[i] = dial(t, s, recipient, box.take)
		t.Cleanup(func() { agents[i].Close() })
	}
	box.onArrival(senders*recipients*perPair/2, func() { go s.process.Process.Kill() })
	registerAll(t, agents, true)
	<-box.reached
	s.kill()
	s.start()
	registerAll(t, agents, false)
}

func registerAll(t *testing.T, agents []*ua.Agent, mayFail bool) {
	var all sync.WaitGroup
	for _, agent := range agents {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			if _, err := agent.Register(ctx, time.Hour); err != nil && !mayFail {
				t.Errorf("register: %v", err)
			}
		})
	}
	all.Wait()
}

func dial(t *testing.T, s *server, user string, handle func(ua.Incoming) bool) *ua.Agent {
	agent, err := ua.Dial(t.Context(), ua.Config{
		Address: message.Address{User: user, Host: "sip.example.com"}, Password: password, UDP: s.sip, Handle: handle,
	})
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// mailbox keeps what arrived, in order.
type mailbox struct {
	reached chan struct{}

	mu       sync.Mutex
	arrivals []string
	counts   map[string]int
	at       int
	then     func()
}

func newMailbox() *mailbox {
	return &mailbox{reached: make(chan struct{}), counts: map[string]int{}}
}

// onArrival calls f once n messages have arrived.
func (b *mailbox) onArrival(n int, f func()) { b.at, b.then = n, f }

func (b *mailbox) take(m ua.Incoming) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrivals = append(b.arrivals, string(m.Body))
	b.counts[string(m.Body)]++
	if len(b.arrivals) == b.at {
		b.then()
		close(b.reached)
	}
	return true
}

func (b *mailbox) distinct() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.counts)
}

// check compares what arrived with what was accepted and counts repeats.
func (b *mailbox) check(t *testing.T, accepted map[string]bool) (duplicates int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := 0
	for body := range accepted {
		if b.counts[body] == 0 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d messages were answered 202 and are lost", lost)
	}
	next := map[string]int{}
	seen := map[string]bool{}
	for _, body := range b.arrivals {
		if seen[body] {
			duplicates++
			continue
		}
		seen[body] = true
		var from, to string
		var n int
		if _, err := fmt.Sscanf(body, "%s %s %d", &from, &to, &n); err != nil {
			t.Errorf("nobody sent %q", body)
		}
		if n != next[from+to] {
			t.Errorf("%q arrives when number %d is due", body, next[from+to])
		}
		next[from+to] = n + 1
	}
	return duplicates
}
