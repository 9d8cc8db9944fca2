package pipeline

import (
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/plugin"
)

// supply is plugin.Supply, for the messages of one decider.
type supply struct {
	p        *Pipeline
	received time.Time
	text     string
}

// Text is plugin.Supply.
func (s *supply) Text() string {
	n := plugin.MaxQuestionText
	if len(s.text) <= n {
		return s.text
	}
	for !utf8.RuneStart(s.text[n]) {
		n--
	}
	return s.text[:n]
}

// Count is plugin.Supply.
func (s *supply) Count(l plugin.Limit) int { return s.p.limiter.Count(l, s.received) }

// question is what the policy is asked. The message's text is for the supply.
func (p *Pipeline) question(a plugin.Arrival, to addressee, more *supply) plugin.Question {
	m := a.Message
	more.received = m.Received
	more.text, _ = content.Text(m.ContentType, m.Body)
	q := plugin.Question{
		Message: plugin.QuestionMessage{
			ID: m.ID.String(), Type: content.MediaType(m.ContentType), Class: m.Class.String(),
			Inner: content.Examine(m.ContentType, m.Body).Inner, Size: len(m.Body),
			Segments: content.Segments(more.text), Missing: m.Missing,
		},
		Sender: plugin.QuestionSender{
			Account: a.Account.ID, Address: m.From.String(), User: m.From.User, Domain: m.From.Host,
			Number: m.Number, Local: a.Account.ID != m.Transport, Attributes: a.Account.Attributes,
		},
		Recipient: plugin.QuestionRecipient{
			Address: m.Recipient.String(), User: m.Recipient.User, Domain: m.Recipient.Host,
			Local: to.known, Account: to.ID, Attributes: to.Attributes,
		},
		Transport: m.Transport, Protocol: p.Doors[m.Transport].Protocol, Peer: m.Peer,
		Time: m.Received.UTC(), Clock: p.clock(m.Received),
	}
	if m.Expires != nil {
		seconds := int(*m.Expires / time.Second)
		q.Message.Expires = &seconds
	}
	if to.known {
		q.Recipient.Devices = devices(p.Locations.Of(to.ID, m.Received))
		q.Recipient.Registered = q.Recipient.Devices > 0
	}
	return q
}

func devices(bindings []plugin.Binding) int {
	if len(bindings) < 2 {
		return len(bindings)
	}
	seen := map[string]bool{}
	for _, b := range bindings {
		seen[b.Device] = true
	}
	return len(seen)
}

// reading is what the operator's clock shows in one second.
type reading struct {
	second int64
	clock  plugin.Clock
}

// clock shows a moment on the operator's clock. Most messages of a second find
// it shown already.
func (p *Pipeline) clock(t time.Time) plugin.Clock {
	if last := p.lastClock.Load(); last != nil && last.second == t.Unix() {
		return last.clock
	}
	now := &reading{t.Unix(), plugin.ClockAt(t, p.Zone)}
	p.lastClock.Store(now)
	return now.clock
}
