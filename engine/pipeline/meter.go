package pipeline

import (
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/push"
	"github.com/imgate/imgate/engine/spool"
)

// maxServices is how many services have series of their own; their names come
// from policies. The rest is counted as otherService.
const (
	maxServices  = 1000
	otherService = "other"
)

// timeBounds are the buckets of all histograms: from a decision of a policy to
// a message that waits for a day.
var timeBounds = []time.Duration{
	25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour,
}

// Meter counts what happens, for as long as the process lives: one pipeline
// after the other counts with it.
type Meter struct {
	instances  *vector[string, doorMeter]
	refused    *vector[refusalLabels, plugin.Counter]
	ended      *vector[endLabels, plugin.Counter]
	limits     *vector[limitLabels, plugin.Counter]
	services   nameSet
	limitNames nameSet

	joined, repeated, passed, fallbacks, quarantined, settled, settleFailed, unsettled *plugin.Counter

	parts, assembled, incomplete *plugin.Counter

	policy, charging, whole *plugin.Histogram

	wakes *push.Measures
}

// meter is a Meter as one pipeline uses it, which finds its doors without a lock.
type meter struct {
	*Meter
	doors map[string]*doorMeter
}

// doorMeter counts what goes through one instance.
type doorMeter struct {
	received, accepted     *plugin.Counter
	taken, refused, failed *plugin.Counter // attempts
	attempt                *plugin.Histogram
}

type refusalLabels struct {
	what      string // "messages", "parts", "receipts", "copies" or "registrations"
	transport string
	reason    message.Reason
}

type endLabels struct {
	what               string
	transport, service string
	outcome            spool.StateName
	reason             message.Reason
}

// What has ended, as it is counted.
const (
	endedMessages = "messages"
	endedReceipts = "receipts"
	endedCopies   = "copies"
)

var endedHelp = map[string]string{
	endedMessages: "Messages", endedReceipts: "Delivery receipts and notifications for senders", endedCopies: "Copies for other devices",
}

type limitLabels struct{ service, limit string }

// NewMeter registers what pipelines count, all but what they get to know.
func NewMeter(m *plugin.Metrics) *Meter {
	return &Meter{
		services:     nameSet{known: map[string]bool{}},
		limitNames:   nameSet{known: map[string]bool{}},
		joined:       m.Counter("messages_joined_total", "Repeated submissions, which joined the first one's outcome."),
		repeated:     m.Counter("delivery_repeats_total", "Attempts at a message that a device may have already: an attempt before wasn't answered, or a node before this one may have made one, since the recipient was there when this one took over, or shortly before. An upper bound of what recipients got twice."),
		passed:       m.Counter("lanes_passed_total", "Lanes that passed a message which couldn't go."),
		fallbacks:    m.Counter("delivery_fallbacks_total", "Messages that went on by the fallback of their plan."),
		quarantined:  m.Counter("messages_quarantined_total", "Messages set aside for the operator."),
		settled:      m.Counter("records_settled_total", "Records that charging has settled."),
		settleFailed: m.Counter("settle_errors_total", "Calls of charging that settled nothing and were repeated."),
		unsettled:    m.Counter("releases_dropped_total", "Reservations of refused messages that weren't given back, because too many records waited; they lapse by themselves."),
		parts:        m.Counter("parts_received_total", "Parts of messages that doors have handed in, repeats among them."),
		assembled:    m.Counter("messages_assembled_total", "Messages that were joined from parts, and accepted or ended."),
		incomplete:   m.Counter("messages_incomplete_total", "Messages of which some parts hadn't come in time."),
		policy:       m.Histogram("policy_decision_seconds", "How long the policy took to decide.", timeBounds),
		charging:     m.Histogram("charging_authorize_seconds", "How long charging took to authorise.", timeBounds),
		whole:        m.Histogram("message_seconds", "From a message's receipt until it was delivered.", timeBounds),
		wakes:        push.NewMeasures(m),
		instances:    newVector(func(instance string) *doorMeter { return newDoorMeter(m, instance) }),
		refused: newVector(func(l refusalLabels) *plugin.Counter {
			return m.Counter(l.what+"_refused_total", "What was refused, by the reason.",
				plugin.Label{Name: "transport", Value: l.transport}, plugin.Label{Name: "reason", Value: string(l.reason)})
		}),
		limits: newVector(func(l limitLabels) *plugin.Counter {
			return m.Counter("rate_limited_total", "Messages refused because a rate limit of their service was reached.",
				plugin.Label{Name: "service", Value: l.service}, plugin.Label{Name: "limit", Value: l.limit})
		}),
		ended: newVector(func(l endLabels) *plugin.Counter {
			return m.Counter(l.what+"_ended_total", endedHelp[l.what]+" that have ended, by the transport they went through, or should have.",
				plugin.Label{Name: "transport", Value: l.transport}, plugin.Label{Name: "service", Value: l.service},
				plugin.Label{Name: "outcome", Value: string(l.outcome)}, plugin.Label{Name: "reason", Value: string(l.reason)})
		}),
	}
}

func newDoorMeter(m *plugin.Metrics, instance string) *doorMeter {
	transport := plugin.Label{Name: "transport", Value: instance}
	attempts := func(outcome string) *plugin.Counter {
		return m.Counter("delivery_attempts_total", "Attempts at delivering, by what the peer said: taken, refused for good, or failed for now.",
			transport, plugin.Label{Name: "outcome", Value: outcome})
	}
	return &doorMeter{
		received: m.Counter("messages_received_total", "Messages that doors have handed in.", transport),
		accepted: m.Counter("messages_accepted_total", "Messages that became ours.", transport),
		taken:    attempts("taken"), refused: attempts("refused"), failed: attempts("failed"),
		attempt: m.Histogram("delivery_attempt_seconds", "How long the peer took to answer an attempt.", timeBounds, transport),
	}
}

// Know registers what is counted of an instance, before a pipeline has it.
func (c *Meter) Know(instance string) { c.instances.of(instance) }

// of returns the meter of a pipeline that has these instances.
func (c *Meter) of(instances []string) meter {
	own := meter{c, make(map[string]*doorMeter, len(instances))}
	for _, instance := range instances {
		own.doors[instance] = c.instances.of(instance)
	}
	return own
}

// door counts what came through an instance, also one that is there no more: its
// parts may be.
func (c *meter) door(instance string) *doorMeter {
	if door := c.doors[instance]; door != nil {
		return door
	}
	return c.instances.of(instance)
}

// end counts a message that has ended.
func (c *Meter) end(l endLabels) {
	counter := c.ended.known(l)
	if counter == nil {
		l.service = c.services.bounded(l.service)
		counter = c.ended.of(l)
	}
	counter.Inc()
}

// limited returns what counts the messages that a rate limit has refused.
func (c *Meter) limited(l limitLabels) *plugin.Counter {
	if counter := c.limits.known(l); counter != nil {
		return counter
	}
	if name := l.service + "\x00" + l.limit; c.limitNames.bounded(name) != name {
		l = limitLabels{otherService, otherService}
	}
	return c.limits.of(l)
}

// attempted counts an attempt.
func (c *meter) attempted(instance string, took time.Duration, f *message.Failure) {
	door := c.doors[instance]
	door.attempt.Observe(took)
	switch {
	case f == nil:
		door.taken.Inc()
	case f.Temporary:
		door.failed.Inc()
	default:
		door.refused.Inc()
	}
}

// gauges registers what is read when somebody looks: all that a pipeline has in
// memory. Where there is none they aren't shown: a standby doesn't know what is
// in the spool, and 0 would say that nothing is.
func (p *Pipeline) gauges(m *plugin.Metrics) {
	gauge := func(name, help string, read func() int) {
		m.Gauge(name, help, func() float64 { return float64(read()) })
	}
	gauge("undecided_messages", "Messages that are neither accepted nor refused yet.", func() int { return int(p.undecided.Load()) })
	gauge("spool_messages", "Messages that are ours and have not ended.", p.held)
	gauge("spool_quarantined", "Messages in quarantine.", func() int { return p.lanes.counts().quarantined })
	gauge("spool_handed_over", "Messages whose next hop has yet to report.", func() int { return int(p.reports.held.Load()) })
	gauge("lanes", "Pairs of a sender and a recipient that have messages waiting.", func() int { return p.lanes.counts().lanes })
	gauge("lanes_asleep", "Lanes at rest: their recipient isn't there, or a pause is due.", func() int { return p.lanes.counts().asleep })
	gauge("bindings", "Contacts that are registered.", func() int { awake, _ := p.Locations.Count(); return awake })
	gauge("bindings_asleep", "Contacts whose app sleeps and can be woken.", func() int { _, asleep := p.Locations.Count(); return asleep })
	gauge("rate_limit_windows", "Windows of rate limits that are open, or were a moment ago.", p.limiter.Windows)
	gauge("parts_waiting_messages", "Messages of which parts are here and others awaited.", p.sets.Count)
	gauge("settle_queue", "Records that wait to be settled, in memory.", p.settler.queueLength)
	m.Gauge("spool_oldest_age_seconds", "Age of the oldest message in the spool, to half a minute.", func() float64 { return p.oldestAge(time.Now()).Seconds() })
}

// nameSet holds the first maxServices names that were seen.
type nameSet struct {
	mu    sync.Mutex
	known map[string]bool
}

func (n *nameSet) bounded(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxServices && !n.known[name] {
		return otherService
	}
	n.known[name] = true
	return name
}

// vector holds a counter, or several, for each combination of labels, from when
// it is first needed. The caller bounds what the labels may be.
type vector[L comparable, C any] struct {
	mu       sync.RWMutex
	counters map[L]*C
	register func(L) *C
}

func newVector[L comparable, C any](register func(L) *C) *vector[L, C] {
	return &vector[L, C]{counters: map[L]*C{}, register: register}
}

// known returns the counter if there is one already.
func (v *vector[L, C]) known(labels L) *C {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.counters[labels]
}

func (v *vector[L, C]) of(labels L) *C {
	if counter := v.known(labels); counter != nil {
		return counter
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.counters[labels] == nil {
		v.counters[labels] = v.register(labels)
	}
	return v.counters[labels]
}

// each reads all that there are.
func (v *vector[L, C]) each(read func(L, *C)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for labels, counter := range v.counters {
		read(labels, counter)
	}
}
