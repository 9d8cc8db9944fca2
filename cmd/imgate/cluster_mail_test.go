//go:build cluster

package main_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mail is what arrived at all recipients, in order.
type mail struct {
	mu       sync.Mutex
	arrivals []delivery      // without retransmissions
	branches map[string]bool // of transactions that were seen
	bodies   map[string]bool
}

func newMail() *mail {
	return &mail{branches: map[string]bool{}, bodies: map[string]bool{}}
}

func (m *mail) take(d delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.branches[d.branch] {
		return // again in the same transaction, as UDP wants it
	}
	m.branches[d.branch] = true
	m.bodies[d.body] = true
	m.arrivals = append(m.arrivals, d)
}

func (m *mail) has(body string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bodies[body]
}

func (m *mail) distinct() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.bodies)
}

// receipt is what became of all that was sent.
type receipt struct {
	arrived    int // messages: by what they say
	copies     int // messages that are there once more, because their sender had to send them anew
	duplicates int // deliveries that were made before
}

// check holds what arrived against what was accepted: nothing lost, nothing out
// of order, and what came in two messages had to be sent as two.
func (m *mail) check(t *testing.T, accepted map[string]sent) receipt {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var lost []string
	for body := range accepted {
		if !m.bodies[body] {
			lost = append(lost, body)
		}
	}
	slices.Sort(lost)
	for _, body := range lost[:min(len(lost), 10)] {
		s := accepted[body]
		t.Errorf("lost: %q, answered %d at %s by %s", body, s.code, s.at.Format(clock), s.by)
	}
	if len(lost) > 0 {
		t.Errorf("%d messages were accepted and are lost", len(lost))
	}
	return m.inOrder(t, accepted)
}

// clock is how moments are printed: as in the servers' logs.
const clock = "15:04:05.000"

func (m *mail) inOrder(t *testing.T, accepted map[string]sent) receipt {
	t.Helper()
	next := map[string]int{}           // by pair
	messages := map[string][]string{}  // Call-IDs by what they say
	delivered := map[string]delivery{} // by Call-ID
	r := receipt{arrived: len(m.bodies)}
	for _, d := range m.arrivals {
		if first, found := delivered[d.callID]; found {
			if r.duplicates++; r.duplicates <= 10 {
				t.Logf("twice: %q from %s at %s and from %s at %s", d.body, first.from, first.at.Format(clock), d.from, d.at.Format(clock))
			}
			continue
		}
		delivered[d.callID] = d
		messages[d.body] = append(messages[d.body], d.callID)
		if len(messages[d.body]) > 1 {
			r.copies++
			t.Logf("%q is there in %d messages:\n%s", d.body, len(messages[d.body]), strings.Join(ends(accepted[d.body].trail, 8), "\n"))
			if unsure := accepted[d.body].unsure; len(messages[d.body]) > 1+unsure {
				t.Errorf("%q is there in %d messages, and was sent anew %d times: the last at %s", d.body, len(messages[d.body]), unsure, d.at.Format(clock))
			}
			continue
		}
		var from, to string
		var n int
		if _, err := fmt.Sscanf(d.body, "%s %s %d", &from, &to, &n); err != nil {
			t.Errorf("nobody sent %q", d.body)
		}
		if n != next[from+to] {
			t.Errorf("%q arrives at %s when number %d is due", d.body, d.at.Format(clock), next[from+to])
		}
		next[from+to] = n + 1
	}
	return r
}

// ends leaves out the middle of a long list.
func ends(list []string, n int) []string {
	if len(list) <= 2*n {
		return list
	}
	return slices.Concat(list[:n], []string{"…"}, list[len(list)-n:])
}

// moments are when something new arrived of what is asked for.
func (m *mail) moments(of func(body string) bool) (all []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.arrivals {
		if of(d.body) {
			all = append(all, d.at)
		}
	}
	return all
}
