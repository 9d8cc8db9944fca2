package ladder

import (
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// gateway is our name among the parties.
const gateway = "IMGate"

// trace is what is known of some messages, as the admin API shows it. Texts
// that strangers wrote have been made fit for a terminal; those that end in …
// were cut.
type trace struct {
	Messages []traced `json:"messages"`
	// Parties are who speaks, in the order of the diagram's columns: those who
	// turned to us first, us, those to whom we turned first.
	Parties []string `json:"parties"`
	Events  []event  `json:"events"` // in the order of time
	// Truncated: there was more than is shown, or part of it is forgotten.
	Truncated bool `json:"truncated"`
}

// traced is a message that is traced.
type traced struct {
	ID       message.ID `json:"id"`
	PublicID string     `json:"public_id"`
	From     string     `json:"from"`
	To       string     `json:"to"`
}

// event is a packet, which has From and To, or a step, which has a Message.
type event struct {
	Time time.Time `json:"time"`
	What string    `json:"what"` // a packet's method or status; a step's name

	// Of a packet.
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Detail  string `json:"detail,omitempty"` // the Request-URI, the reason phrase
	Network string `json:"network,omitempty"`
	Call    string `json:"call,omitempty"`
	Repeat  bool   `json:"repeat,omitempty"` // it has been said before

	// Of a step.
	Message *message.ID `json:"message,omitempty"`
	Took    int64       `json:"took_us,omitempty"` // microseconds
	Reason  string      `json:"reason,omitempty"`
	Service string      `json:"service,omitempty"`
	Peer    string      `json:"peer,omitempty"`
	Attempt int         `json:"attempt,omitempty"`

	Transport string `json:"transport,omitempty"` // the instance
}

// isPacket tells packets from steps.
func (e *event) isPacket() bool { return e.Message == nil }

// failed tells whether a step was none forward.
func (e *event) failed() bool { return e.Reason != "" }

// maxMessages is how many messages of an address are traced: the last ones.
const maxMessages = 20

// wanted says which messages somebody asks for.
type wanted func(*stepEntry) bool

func (l *Ladder) withID(id message.ID) wanted {
	return func(e *stepEntry) bool { return e.id == id }
}

func (l *Ladder) withPublicID(id string) wanted {
	var want [len(stepEntry{}.publicID)]byte
	if copy(want[:], id) == len(want) {
		return func(*stepEntry) bool { return false }
	}
	return func(e *stepEntry) bool { return e.publicID == want }
}

func (l *Ladder) withAddress(a message.Address) wanted {
	want := hashAddress(l.seed, a)
	return func(e *stepEntry) bool { return e.from == want || e.recipient == want }
}

// find traces the last messages that are wanted, with at most limit events.
func (l *Ladder) find(want wanted, limit int) trace {
	steps, cutMessages := l.findSteps(want)
	packets := l.findPackets(steps)
	t := trace{
		Messages:  messagesOf(steps),
		Parties:   partiesOf(packets),
		Events:    merge(packets, steps),
		Truncated: cutMessages || beginningsMissing(steps),
	}
	if len(t.Events) > limit {
		t.Events, t.Truncated = t.Events[:limit], true
	}
	return t
}

// findSteps returns all steps of the last maxMessages messages that are wanted,
// and whether there were more messages.
func (l *Ladder) findSteps(want wanted) (steps []stepEntry, more bool) {
	var ids []message.ID
	l.steps.each(func(e *stepEntry) bool {
		if want(e) && !slices.Contains(ids, e.id) {
			if len(ids) == maxMessages {
				ids, more = ids[1:], true
			}
			ids = append(ids, e.id)
		}
		return true
	})
	l.steps.each(func(e *stepEntry) bool {
		if slices.Contains(ids, e.id) {
			steps = append(steps, *e)
		}
		return true
	})
	return steps, more
}

// findPackets returns all packets of the calls that the steps name.
func (l *Ladder) findPackets(steps []stepEntry) (packets []packetEntry) {
	calls := map[uint64]bool{}
	for i := range steps {
		if steps[i].call != 0 {
			calls[steps[i].call] = true
		}
	}
	l.packets.each(func(e *packetEntry) bool {
		if calls[e.call] {
			packets = append(packets, *e)
		}
		return true
	})
	return packets
}

func messagesOf(steps []stepEntry) []traced {
	found := []traced{} // not null in JSON
	for i := range steps {
		e := &steps[i]
		if slices.ContainsFunc(found, func(t traced) bool { return t.ID == e.id }) {
			continue
		}
		found = append(found, traced{ID: e.id, PublicID: text(e.publicID[:]), From: text(e.fromText[:]), To: text(e.toText[:])})
	}
	return found
}

// beginningsMissing tells whether the first step of a message is forgotten.
func beginningsMissing(steps []stepEntry) bool {
	seen := map[message.ID]bool{}
	for i := range steps {
		id, name := steps[i].id, plugin.StepName(text(steps[i].name[:]))
		if !seen[id] && name != plugin.StepReceived {
			return true
		}
		seen[id] = true
	}
	return false
}

// partiesOf orders who speaks: those whose first packet came to us stand left
// of us, the others right.
func partiesOf(packets []packetEntry) []string {
	var left, right []string
	for i := range packets {
		peer := packets[i].remote.String()
		switch {
		case slices.Contains(left, peer) || slices.Contains(right, peer):
		case packets[i].sent:
			right = append(right, peer)
		default:
			left = append(left, peer)
		}
	}
	return slices.Concat(left, []string{gateway}, right)
}

// merge brings packets and steps into the order of time. A packet stands before
// a step of the same moment: it is what brought it.
func merge(packets []packetEntry, steps []stepEntry) []event {
	events := make([]event, 0, len(packets)+len(steps))
	said := map[uint64]bool{}
	for i := range packets {
		e := packets[i].event()
		e.Repeat = said[packets[i].same]
		said[packets[i].same] = true
		events = append(events, e)
	}
	for i := range steps {
		events = append(events, steps[i].event())
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.Time.Compare(b.Time) })
	return events
}

func (e *packetEntry) event() event {
	from, to := e.remote.String(), gateway
	if e.sent {
		from, to = to, from
	}
	return event{
		Time: time.Unix(0, e.at).UTC(), From: from, To: to,
		What: text(e.what[:]), Detail: text(e.detail[:]), Network: text(e.network[:]),
		Call: text(e.callText[:]), Transport: text(e.transport[:]),
	}
}

// event stands where the step ended: what it is about is known only then.
func (e *stepEntry) event() event {
	return event{
		Time: time.Unix(0, e.ended).UTC(), Message: &e.id, What: text(e.name[:]),
		Took: e.took().Microseconds(), Reason: text(e.reason[:]), Service: text(e.service[:]),
		Peer: text(e.peer[:]), Attempt: int(e.attempt), Transport: text(e.transport[:]),
	}
}
