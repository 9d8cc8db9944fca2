package spool

import (
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// entryFormat is the version of the rows in table messages. Version 1 had no
// trace, version 2 nothing of a plan behind its labels, version 3 nothing behind
// the routes, version 4 neither forking nor copies; their rows are still read.
const entryFormat = 5

// Entry is a message with all that was decided about it: what Put writes,
// once, and nobody changes.
type Entry struct {
	Message   *message.Message
	Submitter string // the account that handed it in
	Account   string // the recipient's account; empty if it isn't one of ours
	Key       string // of the submission, see plugin.Arrival
	Expiry    time.Time
	Plan      plugin.Plan

	// Record is what charging gets when the fate is known; nil: not charged, or
	// charged when it was accepted.
	Record *plugin.Record
	Routes []plugin.Route

	Copy Copy // zero: it isn't one
}

// Copy says for which of the recipient's devices a message is that another one has
// taken already: it goes to no other.
type Copy struct {
	Device string // see plugin.Binding
	// Of is the message that was taken: the device is to know a copy by the same
	// reference, since it may have had an attempt at that.
	Of message.ID
}

// IsZero tells whether a message is nobody's copy.
func (c Copy) IsZero() bool { return c == Copy{} }

// Transient tells whether the message must go now or not at all.
func (e *Entry) Transient() bool { return !e.Expiry.After(e.Message.Received) }

// Recipient is who the message is delivered to, and charged for.
func (e *Entry) Recipient() message.Address {
	if to := e.Plan.Rewrite.Recipient; !to.IsZero() {
		return to
	}
	return e.Message.Recipient
}

// Sender is the address that the recipient sees.
func (e *Entry) Sender(fallback bool) message.Address {
	switch {
	case fallback && !e.Plan.Fallback.Sender.IsZero():
		return e.Plan.Fallback.Sender
	case !e.Plan.Rewrite.Sender.IsZero():
		return e.Plan.Rewrite.Sender
	}
	return e.Message.From
}

// Outgoing is the message as peers get it. With another sender goes the name that
// the sender gave itself: who hides a number hides that too.
func (e *Entry) Outgoing(fallback bool) *message.Message {
	from, to := e.Sender(fallback), e.Recipient()
	if from == e.Message.From && to == e.Message.Recipient {
		return e.Message
	}
	m := *e.Message
	m.Recipient = to
	if from != m.From {
		m.From, m.DisplayName, m.Number = from, "", ""
	}
	return &m
}

// State is what has happened to a message that didn't go at once.
type State struct {
	Attempts    int
	Quarantined message.Reason // why it is set aside; empty: it isn't
	HandedOver  bool           // the next hop is responsible and reports later
	Deliveries  []Delivery
	Fallback    bool // the plan's fallback is at work
	Earlier     int  // of Attempts, those that don't count: before the fallback, before it was set aside, or throttled
	Hurried     bool // an operator has sent it before its time
}

// Delivery is one device's, or next hop's, part of a message.
type Delivery struct {
	Device    string // plugin.Binding.Device; empty: the group of those that don't say
	Transport string
	Delivered bool
	Refused   message.Reason // for good; empty: not refused
	Unknown   bool           // the last attempt wasn't answered
	Parts     []Part         // that the peer has taken and reports, in their order
	Progress  []byte         // what the transport needs to go on, see plugin.Route; empty: all of it was taken, or nothing
	Unwrapped bool           // what was sent of a message/cpim is what it holds, see plugin.Receipt
}

// Part is one of the parts in which a message went to a peer.
type Part struct {
	PeerID   string // the peer's name for it
	Reported bool   // as delivered
}

// Delivery returns the part of a device, which is added if it is new.
func (s *State) Delivery(transport, device string) *Delivery {
	i := slices.IndexFunc(s.Deliveries, func(d Delivery) bool {
		return d.Transport == transport && d.Device == device
	})
	if i < 0 {
		i = len(s.Deliveries)
		s.Deliveries = append(s.Deliveries, Delivery{Transport: transport, Device: device})
	}
	return &s.Deliveries[i]
}

func encodeEntry(e *Entry) []byte {
	w := &writer{b: make([]byte, 0, 512+len(e.Message.Body))}
	w.uint(entryFormat)
	encodeMessage(w, e.Message)
	w.string(e.Account)
	w.string(e.Key)
	w.time(e.Expiry)
	encodePlan(w, e.Plan)
	w.bool(e.Record != nil)
	if e.Record != nil {
		encodeRecord(w, *e.Record)
	}
	w.uint(uint64(len(e.Routes)))
	for _, route := range e.Routes {
		w.string(route.Transport)
		w.string(route.Address)
	}
	w.string(e.Submitter)
	w.string(e.Message.Number)
	w.time(e.Message.NotBefore)
	w.uint(uint64(e.Message.Missing))
	encodeText(w, e.Plan.Text)
	w.uint(uint64(e.Message.Report))
	encodeReceipt(w, e.Message.Receipt)
	w.uint(indexOf(forkings[:], e.Plan.Forking))
	w.uint(indexOf(deviceModes[:], e.Plan.Devices))
	encodeCopy(w, e.Copy)
	return w.b
}

func decodeEntry(b []byte) (*Entry, error) {
	r := &reader{b: b}
	version := r.version(1, entryFormat)
	e := &Entry{Message: decodeMessage(r)}
	if version > 1 {
		e.Message.Trace = r.string()
	}
	e.Account = r.string()
	e.Key = r.string()
	e.Expiry = r.time()
	e.Plan = decodePlan(r, version)
	if r.bool() {
		record := decodeRecord(r)
		e.Record = &record
	}
	for range r.count() {
		e.Routes = append(e.Routes, plugin.Route{Transport: r.string(), Address: r.string()})
	}
	e.Plan.Forking, e.Plan.Devices = forkings[0], deviceModes[0]
	if version < 4 {
		e.Plan.Text.Transliterate = transliterations[0]
		return e, r.done()
	}
	e.Submitter, e.Message.Number = r.string(), r.string()
	e.Message.NotBefore, e.Message.Missing = r.time(), int(r.uint())
	e.Plan.Text = decodeText(r)
	e.Message.Report, e.Message.Receipt = message.Report(r.uint()), decodeReceipt(r)
	if version > 4 {
		e.Plan.Forking, e.Plan.Devices = wordAt(r, forkings[:]), wordAt(r, deviceModes[:])
		e.Copy = decodeCopy(r)
	}
	return e, r.done()
}

func encodeCopy(w *writer, c Copy) {
	w.string(c.Device)
	if c.Device != "" {
		w.id(c.Of)
	}
}

func decodeCopy(r *reader) (c Copy) {
	if c.Device = r.string(); c.Device != "" {
		c.Of = r.id()
	}
	return c
}

func encodeReceipt(w *writer, c *message.Receipt) {
	w.bool(c != nil)
	if c == nil {
		return
	}
	w.string(c.PublicID)
	w.uint(uint64(c.State))
	w.string(string(c.Reason))
	w.time(c.Submitted)
	w.time(c.Done)
}

func decodeReceipt(r *reader) *message.Receipt {
	if !r.bool() {
		return nil
	}
	return &message.Receipt{
		PublicID: r.string(), State: message.ReceiptState(r.uint()), Reason: message.Reason(r.string()),
		Submitted: r.time(), Done: r.time(),
	}
}

func encodeText(w *writer, t plugin.PlanText) {
	w.uint(uint64(len(t.Alphabets)))
	for _, a := range t.Alphabets {
		w.uint(indexOf(alphabets[:], a))
	}
	w.uint(indexOf(transliterations[:], t.Transliterate))
}

func decodeText(r *reader) (t plugin.PlanText) {
	for range r.count() {
		t.Alphabets = append(t.Alphabets, wordAt(r, alphabets[:]))
	}
	t.Transliterate = wordAt(r, transliterations[:])
	return t
}

func encodeMessage(w *writer, m *message.Message) {
	w.id(m.ID)
	w.string(m.PublicID)
	w.time(m.Received)
	w.address(m.From)
	w.string(m.DisplayName)
	w.address(m.Recipient)
	w.string(m.ContentType)
	w.uint(uint64(m.Class))
	w.bytes(m.Body)
	w.uint(uint64(len(m.Headers)))
	for _, h := range m.Headers {
		w.string(h.Name)
		w.string(h.Value)
	}
	w.bool(m.Expires != nil)
	if m.Expires != nil {
		w.duration(*m.Expires)
	}
	w.uint(uint64(m.Hops))
	w.string(m.Transport)
	w.string(m.Peer)
	w.string(m.Trace)
}

func decodeMessage(r *reader) *message.Message {
	m := &message.Message{
		ID: r.id(), PublicID: r.string(), Received: r.time(),
		From: r.address(), DisplayName: r.string(), Recipient: r.address(),
		ContentType: r.string(), Class: message.Class(r.uint()), Body: r.bytes(),
	}
	for range r.count() {
		m.Headers = append(m.Headers, message.Header{Name: r.string(), Value: r.string()})
	}
	if r.bool() {
		expires := r.duration()
		m.Expires = &expires
	}
	m.Hops = uint8(r.uint())
	m.Transport = r.string()
	m.Peer = r.string()
	return m
}

// encodePlan keeps what is needed after the message was accepted; the rest of
// a plan has had its effect by then.
func encodePlan(w *writer, p plugin.Plan) {
	w.string(p.Service)
	w.string(p.Revision)
	w.strings(p.Transports)
	w.uint(uint64(len(p.Retry.Backoff)))
	for _, pause := range p.Retry.Backoff {
		w.duration(pause)
	}
	w.uint(uint64(len(p.Labels)))
	for _, key := range sortedKeys(p.Labels) {
		w.string(key)
		w.string(p.Labels[key])
	}
	w.uint(indexOf(moments[:], p.Charging.When))
	w.uint(uint64(p.Retry.Attempts))
	w.reasons(p.Retry.Reasons)
	w.uint(indexOf(unknowns[:], p.Retry.Unknown))
	w.strings(p.Fallback.Transports)
	w.reasons(p.Fallback.Reasons)
	w.address(p.Fallback.Sender)
	w.address(p.Rewrite.Sender)
	w.address(p.Rewrite.Recipient)
}

// The words of a plan: rows hold the index, new ones go to the end. The first one
// counts where there is none.
var (
	moments  = [...]plugin.ChargingMoment{plugin.OnHandover, plugin.OnAcceptance, plugin.OnDelivery}
	unknowns = [...]plugin.UnknownOutcome{plugin.UnknownRetry, plugin.UnknownFallback, plugin.UnknownFail}
	forkings = [...]plugin.Forking{plugin.ForkParallel, plugin.ForkSequential}

	deviceModes      = [...]plugin.DeviceMode{plugin.AnyDevice, plugin.AllDevices}
	alphabets        = [...]plugin.Alphabet{plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2}
	transliterations = [...]plugin.Transliterate{plugin.TransliterateConfigured, plugin.TransliterateNever, plugin.TransliterateAlways}
)

func indexOf[T comparable](words []T, word T) uint64 {
	return uint64(max(0, slices.Index(words, word)))
}

func wordAt[T any](r *reader, words []T) (word T) {
	i := r.uint()
	if i >= uint64(len(words)) {
		r.fail()
		return word
	}
	return words[i]
}

func decodePlan(r *reader, version uint64) plugin.Plan {
	p := plugin.Plan{Service: r.string(), Revision: r.string(), Transports: r.strings()}
	for range r.count() {
		p.Retry.Backoff = append(p.Retry.Backoff, r.duration())
	}
	p.Labels = r.labels()
	p.Charging.When, p.Retry.Unknown = moments[0], unknowns[0]
	if version < 3 {
		return p
	}
	p.Charging.When = wordAt(r, moments[:])
	p.Retry.Attempts, p.Retry.Reasons = int(r.uint()), r.reasons()
	p.Retry.Unknown = wordAt(r, unknowns[:])
	p.Fallback = plugin.PlanFallback{Transports: r.strings(), Reasons: r.reasons(), Sender: r.address()}
	p.Rewrite = plugin.PlanRewrite{Sender: r.address(), Recipient: r.address()}
	return p
}

func sortedKeys(m map[string]string) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func encodeRecord(w *writer, c plugin.Record) {
	w.id(c.Key)
	w.bool(c.Charged)
	w.string(c.Payer)
	w.string(c.Destination)
	w.int(int64(c.Units))
	w.address(c.From)
	w.address(c.Recipient)
	w.string(c.Service)
	w.string(c.Transport)
	w.time(c.Received)
	w.time(c.Settled)
	w.bytes(c.Reserved)
}

func decodeRecord(r *reader) plugin.Record {
	return plugin.Record{
		Key: r.id(), Charged: r.bool(), Payer: r.string(), Destination: r.string(), Units: int(r.int()),
		From: r.address(), Recipient: r.address(), Service: r.string(), Transport: r.string(),
		Received: r.time(), Settled: r.time(), Reserved: r.bytes(),
	}
}

// stateFormat is the version of the rows in table states. Version 1 knew no
// fallback, version 2 one part of each delivery, version 3 nothing of unwrapping;
// their rows are still read.
const stateFormat = 4

func encodeState(s State) []byte {
	w := &writer{}
	w.uint(stateFormat)
	w.uint(uint64(s.Attempts))
	w.string(string(s.Quarantined))
	w.bool(s.HandedOver)
	w.uint(uint64(len(s.Deliveries)))
	for _, d := range s.Deliveries {
		w.string(d.Device)
		w.string(d.Transport)
		w.bool(d.Delivered)
		w.string(string(d.Refused))
		w.bool(d.Unknown)
		w.uint(uint64(len(d.Parts)))
		for _, part := range d.Parts {
			w.string(part.PeerID)
			w.bool(part.Reported)
		}
		w.bytes(d.Progress)
		w.bool(d.Unwrapped)
	}
	w.bool(s.Fallback)
	w.uint(uint64(s.Earlier))
	w.bool(s.Hurried)
	return w.b
}

func decodeState(b []byte) (State, error) {
	r := &reader{b: b}
	version := r.version(1, stateFormat)
	s := State{Attempts: int(r.uint()), Quarantined: message.Reason(r.string()), HandedOver: r.bool()}
	for range r.count() {
		s.Deliveries = append(s.Deliveries, decodeDelivery(r, version))
	}
	if version > 1 {
		s.Fallback, s.Earlier = r.bool(), int(r.uint())
	}
	if version > 2 {
		s.Hurried = r.bool()
	}
	return s, r.done()
}

func decodeDelivery(r *reader, version uint64) Delivery {
	d := Delivery{Device: r.string(), Transport: r.string(), Delivered: r.bool(), Refused: message.Reason(r.string())}
	if version < 3 {
		if id := r.string(); id != "" {
			d.Parts = []Part{{PeerID: id}}
		}
		return d
	}
	d.Unknown = r.bool()
	for range r.count() {
		d.Parts = append(d.Parts, Part{PeerID: r.string(), Reported: r.bool()})
	}
	d.Progress = r.bytes()
	if version > 3 {
		d.Unwrapped = r.bool()
	}
	return d
}
