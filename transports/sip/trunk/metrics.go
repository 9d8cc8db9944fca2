package trunk

import "github.com/imgate/imgate/engine/plugin"

// countedAnswers are what servers' answers are counted by.
var countedAnswers = []string{"2xx", "3xx", "4xx", "5xx", "6xx", "none"}

// metrics count what an instance does. What the wire and the resolver do, these
// count.
type metrics struct {
	answers   map[string]*plugin.Counter
	failovers *plugin.Counter
	refused   *plugin.Counter
}

func newMetrics(m *plugin.Metrics, t *Trunk) *metrics {
	m.Gauge("sip_trunk_in_service", "1: messages are sent; 0: they wait, since the next hop doesn't answer OPTIONS.", func() float64 {
		if t.health.down.Load() {
			return 0
		}
		return 1
	})
	c := &metrics{
		answers:   map[string]*plugin.Counter{},
		failovers: m.Counter("sip_trunk_failovers_total", "Messages that went on to another server, since one didn't take them: no way, no answer, or 503."),
		refused:   m.Counter("sip_trunk_credentials_refused_total", "Messages that a server refused since it didn't take our credentials."),
	}
	for _, answer := range countedAnswers {
		c.answers[answer] = m.Counter("sip_trunk_answers_total", "Messages by how the last server that was tried answered; none: it didn't.",
			plugin.Label{Name: "status", Value: answer})
	}
	return c
}

func (m *metrics) answered(status int) {
	class := status/100 - 2
	m.answers[countedAnswers[min(max(class, 0), 4)]].Inc()
}
