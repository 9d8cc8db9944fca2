package server

import (
	"strconv"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// How a request was answered, ours or an ESME's.
const (
	answerTaken = iota
	answerThrottled
	answerTemporary
	answerPermanent
	answerNone
	answerKinds
)

var answerNames = [answerKinds]string{"taken", "throttled", "temporary", "permanent", "none"}

// countedRequests are those that an ESME may make; others count as 0.
var countedRequests = []pdu.ID{
	0, pdu.BindReceiverID, pdu.BindTransmitterID, pdu.BindTransceiverID, pdu.SubmitSMID, pdu.SubmitMultiID,
	pdu.DataSMID, pdu.QuerySMID, pdu.CancelSMID, pdu.ReplaceSMID,
}

// metrics count what the door answers, and what ESMEs answer.
type metrics struct {
	requests  map[pdu.ID]*[answerKinds]*plugin.Counter
	delivered [answerKinds]*plugin.Counter
	responses *plugin.Histogram
}

// responseBounds are those of how long an ESME takes for its answer.
var responseBounds = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

func newMetrics(m *plugin.Metrics, d *Door) *metrics {
	c := &metrics{requests: map[pdu.ID]*[answerKinds]*plugin.Counter{}}
	for _, id := range countedRequests {
		c.requests[id] = counters(m, "smpp_server_requests_total", "Requests of ESMEs, by how they were answered.", wire.Name(id))
	}
	c.delivered = *counters(m, "smpp_server_deliveries_total", "PDUs that were sent to ESMEs, a message or a part of one each, by how they were answered.", "deliver_sm")
	c.responses = m.Histogram("smpp_server_response_seconds", "How long an ESME took for its answer to a message.", responseBounds)
	m.Gauge("smpp_server_binds", "Sessions of ESMEs that are bound.", func() float64 { return float64(d.table.count()) })
	m.Gauge("smpp_server_connections", "Connections of ESMEs.", func() float64 { return float64(d.connections()) })
	w := d.wire.Counters
	for why, n := range map[string]func() uint64{"throttled": w.Throttled.Load, "malformed": w.Malformed.Load, "unknown": w.Unknown.Load} {
		m.CounterFunc("smpp_server_refused_total", "PDUs that were refused unread: too many at once, not as they should be, or of no kind that we know.",
			func() float64 { return float64(n()) }, plugin.Label{Name: "reason", Value: why})
	}
	return c
}

func counters(m *plugin.Metrics, name, help, request string) *[answerKinds]*plugin.Counter {
	var each [answerKinds]*plugin.Counter
	for i, answer := range answerNames {
		each[i] = m.Counter(name, help, plugin.Label{Name: "request", Value: request}, plugin.Label{Name: "answer", Value: answer})
	}
	return &each
}

// answered counts an answer of ours.
func (c *metrics) answered(id pdu.ID, status pdu.Status) {
	each, known := c.requests[id]
	if !known {
		each = c.requests[0]
	}
	kind := answerPermanent
	switch status {
	case wire.ROK:
		kind = answerTaken
	case wire.RThrottled:
		kind = answerThrottled
	case wire.RMsgQFul, wire.RSysErr:
		kind = answerTemporary
	}
	each[kind].Inc()
}

// sent counts an answer of an ESME's to a message, or that there was none.
func (c *metrics) sent(failure *message.Failure, took time.Duration) {
	kind := answerPermanent
	switch {
	case failure == nil:
		kind = answerTaken
	case failure.Reason == message.NoAnswer:
		c.delivered[answerNone].Inc()
		return
	case failure.Reason == message.Overloaded:
		kind = answerThrottled
	case failure.Temporary:
		kind = answerTemporary
	}
	c.delivered[kind].Inc()
	c.responses.Observe(took)
}

// connections returns how many there are, bound or not.
func (d *Door) connections() int {
	n := 0
	for _, l := range d.opened() {
		n += l.Counts().Open
	}
	return n
}

// modes are the binds as the log names them.
var modes = map[pdu.ID]string{
	pdu.BindReceiverID: "receiver", pdu.BindTransmitterID: "transmitter", pdu.BindTransceiverID: "transceiver",
}

// version is how people write an interface_version.
func version(n uint8) string {
	return strconv.Itoa(int(n>>4)) + "." + strconv.Itoa(int(n&0xf))
}

// logBind says that an ESME is bound. One that comes and goes all the time shall not
// fill the disk either.
func (d *Door) logBind(s *session, b *bind) {
	if _, ok := d.comings.next(b.since); !ok {
		return
	}
	d.log.Info("ESME bound", "system_id", b.systemID, "peer", s.wire.RemoteAddr(), "mode", modes[b.mode],
		"version", version(b.version), "network", s.wire.Network())
}

func (d *Door) logUnbind(s *session, b *bind, why error) {
	unsaid, ok := d.goings.next(time.Now())
	if !ok {
		return
	}
	d.log.Info("ESME unbound", "system_id", b.systemID, "peer", s.wire.RemoteAddr(), "mode", modes[b.mode],
		"version", version(b.version), "reason", why, "after", time.Since(b.since).Round(time.Second), "unsaid", unsaid)
}

// logRefusal says why a bind was refused. A flood of them shall not fill the disk
// with lines about itself: what isn't said is counted.
func (d *Door) logRefusal(s *session, request *wire.Bind, why *refusal, now time.Time) {
	unsaid, ok := d.refusals.next(now)
	if !ok {
		return
	}
	d.log.Info("bind refused", "system_id", request.SystemID, "peer", s.wire.RemoteAddr(), "mode", modes[request.Mode],
		"status", wire.StatusName(why.status), "reason", why.reason, "unsaid", unsaid)
}

// How often the log says within a minute why a bind was refused, and that an ESME has
// come, or gone: all of them may, after a network was lost.
const (
	refusalsPerMinute = 30
	comingsPerMinute  = 2000
)

// lines are what the log has said within a minute.
type lines struct {
	most   int
	mu     sync.Mutex
	since  time.Time
	said   int
	unsaid int
}

// next tells whether a line may be written, and how many weren't since the last.
func (l *lines) next(now time.Time) (unsaid int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Minute {
		l.since, l.said = now, 0
	}
	if l.said >= l.most {
		l.unsaid++
		return 0, false
	}
	l.said++
	unsaid, l.unsaid = l.unsaid, 0
	return unsaid, true
}
