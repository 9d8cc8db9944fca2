package spool

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// StateName says where a message, or a device's part of it, has got to.
type StateName string

// The states. Handed over, delivered, failed and discarded are ends; a message that
// was handed over has ended only when it has a time of its end, too: then nobody
// has said what became of it.
const (
	StateWaiting     StateName = "waiting"
	StateSending     StateName = "sending"
	StateQuarantined StateName = "quarantined"
	StateHandedOver  StateName = "handed-over"
	StateDelivered   StateName = "delivered"
	StateFailed      StateName = "failed"
	StateDiscarded   StateName = "discarded"
	StateScheduled   StateName = "scheduled" // its time hasn't come
	StateUnknown     StateName = "unknown"   // of a delivery: the attempt wasn't answered
)

// StateNames lists every state. Rows hold the index: new ones go to the end.
var StateNames = [...]StateName{
	StateWaiting, StateSending, StateQuarantined, StateHandedOver, StateDelivered, StateFailed, StateDiscarded,
	StateScheduled, StateUnknown,
}

// MessageStates are those that a message may be in: all but unknown.
var MessageStates = StateNames[:len(StateNames)-1]

// Summary is all that is known of a message except what it says.
type Summary struct {
	ID         message.ID        `json:"id"`
	PublicID   string            `json:"public_id"`
	State      StateName         `json:"state"`
	From       message.Address   `json:"from"`
	To         message.Address   `json:"to"`                   // who it is delivered to, and charged for
	SentAs     message.Address   `json:"sent_as,omitzero"`     // the sender that the recipient sees, if that is another
	OriginalTo message.Address   `json:"original_to,omitzero"` // the recipient that it came with, if that was another
	Type       string            `json:"type"`                 // the content type, as it came
	Size       int               `json:"size"`                 // octets of the body
	Missing    int               `json:"missing,omitempty"`    // parts that haven't come
	Received   time.Time         `json:"received"`
	Expiry     time.Time         `json:"expiry"`
	Service    string            `json:"service"`
	Revision   string            `json:"revision"`
	Transport  string            `json:"transport"` // the instance through which it came in
	Peer       string            `json:"peer"`      // who handed it over
	Account    string            `json:"account"`   // that handed it in
	Attempts   int               `json:"attempts"`
	Reason     message.Reason    `json:"reason,omitempty"`
	Next       time.Time         `json:"next,omitzero"` // when it is tried again; never on disk
	Deliveries []DeliverySummary `json:"deliveries,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Ended      time.Time         `json:"ended,omitzero"`
	Device     string            `json:"device,omitempty"` // that it is a copy for, see Copy
	CopyOf     message.ID        `json:"copy_of,omitzero"` // the message that another device has taken

	// Submission is what it came with, for SeenTable: zero if it can't come
	// again, and while the message hasn't ended.
	Submission Digest `json:"-"`
}

// DeliverySummary is one device's, or next hop's, part of a message.
type DeliverySummary struct {
	Transport string         `json:"transport"`
	Device    string         `json:"device"`
	State     StateName      `json:"state"`
	Reason    message.Reason `json:"reason,omitempty"`
	PeerIDs   []string       `json:"peer_ids,omitempty"` // the peer's names for its parts, if it reports
}

// Summary returns what is known of a message that waits, except where it is.
func (e *Entry) Summary() Summary {
	m := e.Message
	s := Summary{
		ID: m.ID, PublicID: m.PublicID, From: m.From, To: e.Recipient(), Type: m.ContentType, Size: len(m.Body), Missing: m.Missing,
		Received: m.Received, Expiry: e.Expiry, Service: e.Plan.Service, Revision: e.Plan.Revision,
		Transport: m.Transport, Peer: m.Peer, Account: e.Submitter, Labels: e.Plan.Labels,
		Device: e.Copy.Device, CopyOf: e.Copy.Of,
	}
	if s.To != m.Recipient {
		s.OriginalTo = m.Recipient
	}
	s.NoteSender(e, false)
	return s
}

// NoteSender notes the sender that the recipient sees.
func (s *Summary) NoteSender(e *Entry, fallback bool) {
	s.SentAs = message.Address{}
	if from := e.Sender(fallback); from != e.Message.From {
		s.SentAs = from
	}
}

// Parts returns the deliveries as an operator sees them.
func (s State) Parts() []DeliverySummary {
	parts := make([]DeliverySummary, 0, len(s.Deliveries))
	for _, d := range s.Deliveries {
		parts = append(parts, d.Summary())
	}
	return parts
}

// Summary is a delivery as an operator sees it.
func (d Delivery) Summary() DeliverySummary {
	s := DeliverySummary{Transport: d.Transport, Device: d.Device, State: StateWaiting, Reason: d.Refused}
	for _, part := range d.Parts {
		s.PeerIDs = append(s.PeerIDs, part.PeerID)
	}
	switch {
	case d.Delivered:
		s.State = StateDelivered
	case d.Unknown:
		s.State = StateUnknown
	case d.Refused != "":
		s.State = StateFailed
	case len(d.Parts) > 0:
		s.State = StateHandedOver
	}
	return s
}

// Record writes the record of a message that was never in the spool, and other
// changes with it. seen may be nil, see Fate.
func (s *Spool) Record(ended *Summary, seen *Seen, also ...plugin.Change) {
	changes := []plugin.Change{ended.Row()}
	if seen != nil {
		changes = append(changes, seen.row())
	}
	s.committer.Move(append(changes, also...), nil)
}

// History reads up to n records of ended messages with from <= id < to, in the
// order of the ids; a zero to means no end.
func (s *Spool) History(ctx context.Context, from, to message.ID, n int) ([]Summary, error) {
	return read(ctx, s.storage, tableHistory, from[:], end(to), n, decodeSummary)
}

// Forget deletes up to n records of messages with from <= id that were received
// before a time, and what led to them from other names than their own. It returns
// how many, and the last one's id.
func (s *Spool) Forget(ctx context.Context, names *Names, from message.ID, before time.Time, n int) (int, message.ID, error) {
	to := firstID(before)
	rows, err := s.storage.Scan(ctx, tableHistory, from[:], to[:], n)
	if err != nil {
		return 0, from, fmt.Errorf("sweep the history: %w", err)
	}
	if len(rows) == 0 {
		return 0, from, nil
	}
	deleted := deletions(rows)
	for _, row := range rows {
		unnamed, err := s.unnamed(ctx, names, row)
		if err != nil {
			return 0, from, fmt.Errorf("sweep the history: %w", err)
		}
		deleted = append(deleted, unnamed...)
	}
	return len(rows), message.ID(rows[len(rows)-1].Key), s.committer.wait(ctx, deleted)
}

// firstID is less than each id made at t or later, and greater than all before
// (RFC 9562 §5.7).
func firstID(t time.Time) (id message.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(t.UnixMilli())<<16)
	return id
}

func end(id message.ID) []byte {
	if id.IsZero() {
		return nil
	}
	return id[:]
}

// historyFormat is the version of the rows in table history. Version 1 knew of
// no rewriting, version 2 not of the sender's account, of parts, nor of the peers'
// names for them, version 3 of copies; their rows are still read.
const historyFormat = 4

// Row is the record on disk. It is written for each message and so allocates
// nothing but itself. What the id tells isn't repeated; times are told from the
// receipt.
func (s *Summary) Row() plugin.Change {
	w := writer{b: make([]byte, 0, len(message.ID{})+s.rowSize())}
	w.id(s.ID)
	w.uint(historyFormat)
	w.id(message.ID(s.Submission))
	w.uint(uint64(slices.Index(StateNames[:], s.State)))
	w.string(s.PublicID)
	w.address(s.From)
	w.address(s.To)
	w.string(s.Type)
	w.uint(uint64(s.Size))
	w.time(s.Received)
	w.int(s.Expiry.Sub(s.Received).Microseconds())
	w.int(s.Ended.Sub(s.Received).Microseconds())
	w.string(s.Service)
	w.string(s.Revision)
	w.string(s.Transport)
	w.string(s.Peer)
	w.uint(uint64(s.Attempts))
	w.string(string(s.Reason))
	w.uint(uint64(len(s.Deliveries)))
	for _, d := range s.Deliveries {
		w.string(d.Transport)
		w.string(d.Device)
		w.uint(uint64(slices.Index(StateNames[:], d.State)))
		w.string(string(d.Reason))
		w.strings(d.PeerIDs)
	}
	w.uint(uint64(len(s.Labels)))
	for key, value := range s.Labels {
		w.string(key)
		w.string(value)
	}
	w.address(s.SentAs)
	w.address(s.OriginalTo)
	w.string(s.Account)
	w.uint(uint64(s.Missing))
	encodeCopy(&w, Copy{s.Device, s.CopyOf})
	key := w.b[:len(message.ID{}):len(message.ID{})]
	return plugin.Change{Table: tableHistory, Key: key, Value: w.b[len(key):]}
}

// rowSize is at least as many octets as the row takes, if no text in it is
// longer than 16 KiB.
func (s *Summary) rowSize() int {
	const numbers, perText, texts = 106, 2, 17
	n := numbers + texts*perText + len(s.PublicID) + len(s.From.User) + len(s.From.Host) + len(s.To.User) + len(s.To.Host) +
		len(s.SentAs.User) + len(s.SentAs.Host) + len(s.OriginalTo.User) + len(s.OriginalTo.Host) +
		len(s.Type) + len(s.Service) + len(s.Revision) + len(s.Transport) + len(s.Peer) + len(s.Reason) + len(s.Account) + len(s.Device)
	for _, d := range s.Deliveries {
		n += 5*perText + len(d.Transport) + len(d.Device) + len(d.Reason)
		for _, id := range d.PeerIDs {
			n += perText + len(id)
		}
	}
	for key, value := range s.Labels {
		n += 2*perText + len(key) + len(value)
	}
	return n
}

func decodeSummary(key, value []byte) (Summary, error) {
	if len(key) != len(message.ID{}) {
		return Summary{}, errCorrupt
	}
	r := &reader{b: value}
	version := r.version(1, historyFormat)
	s := Summary{
		ID: message.ID(key), Submission: Digest(r.id()), State: r.state(), PublicID: r.string(), From: r.address(), To: r.address(),
		Type: r.string(), Size: int(r.uint()), Received: r.time(),
	}
	s.Expiry = s.Received.Add(time.Duration(r.int()) * time.Microsecond)
	s.Ended = s.Received.Add(time.Duration(r.int()) * time.Microsecond)
	s.Service, s.Revision, s.Transport, s.Peer = r.string(), r.string(), r.string(), r.string()
	s.Attempts, s.Reason = int(r.uint()), message.Reason(r.string())
	for range r.count() {
		d := DeliverySummary{Transport: r.string(), Device: r.string(), State: r.state(), Reason: message.Reason(r.string())}
		if version > 2 {
			d.PeerIDs = r.strings()
		}
		s.Deliveries = append(s.Deliveries, d)
	}
	s.Labels = r.labels()
	if version > 1 {
		s.SentAs, s.OriginalTo = r.address(), r.address()
	}
	if version > 2 {
		s.Account, s.Missing = r.string(), int(r.uint())
	}
	if version > 3 {
		c := decodeCopy(r)
		s.Device, s.CopyOf = c.Device, c.Of
	}
	return s, r.done()
}

// decodeSubmission reads only what a record tells of the submission, and nothing
// of one that is known: millions of them are read when a node starts.
func decodeSubmission(key, value []byte, known func(Digest) bool) (Seen, error) {
	if len(key) != len(message.ID{}) {
		return Seen{}, errCorrupt
	}
	r := &reader{b: value}
	r.version(1, historyFormat)
	s := Seen{ID: message.ID(key), Digest: Digest(r.id())}
	if s.Digest == (Digest{}) || known(s.Digest) {
		return Seen{}, r.err
	}
	state := r.state()
	s.PublicID = r.string()
	r.skip(5) // the addresses, and the type
	r.uint()
	s.At = r.time()
	r.int()
	s.Noted = s.At.Add(time.Duration(r.int()) * time.Microsecond)
	switch state {
	case StateDelivered, StateHandedOver:
		s.State = plugin.OutcomeDelivered
	case StateFailed:
		r.skip(4) // the service, the revision, the transport, the peer
		r.uint()
		s.State, s.Reason = plugin.OutcomeFailed, message.Reason(r.string())
	default:
		s.State = plugin.OutcomeWaiting
	}
	return s, r.err
}

func (r *reader) state() StateName {
	i := r.uint()
	if i >= uint64(len(StateNames)) {
		r.fail()
		return ""
	}
	return StateNames[i]
}
