package wire

import (
	"bytes"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// showReceived tells the observers what came. Somebody watches.
func (e *Endpoint) showReceived(a *arrival) {
	p := e.packet(a.flow, a.data)
	switch {
	case a.request != nil:
		p.Call = a.request.CallID
	case a.response != nil:
		p.Call = a.response.value(fieldCallID)
	}
	if a.refusal != nil {
		p.Title = [2]string{"malformed", a.refusal.Phrase}
	} else {
		p.Title = title(a.data)
	}
	e.config.Observers.Packet(p)
}

// showSent tells the observers what is about to be sent: before it is, so that
// they don't see the answer first. Somebody watches.
func (e *Endpoint) showSent(f Flow, call string, packet []byte) {
	p := e.packet(f, packet)
	p.Sent, p.Call, p.Title = true, call, title(packet)
	e.config.Observers.Packet(p)
}

func (e *Endpoint) packet(f Flow, data []byte) *plugin.Packet {
	return &plugin.Packet{
		Time:      time.Now(),
		Transport: e.config.Instance,
		Protocol:  "sip",
		Network:   f.Network,
		Local:     f.Local,
		Remote:    f.Remote,
		Data:      data,
	}
}

// title takes the name of a valid message from its start line: "MESSAGE" and
// the Request-URI, or "202" and "Accepted".
func title(data []byte) [2]string {
	line, _, _ := bytes.Cut(bytes.TrimLeft(data, "\r\n"), []byte("\r\n"))
	first, rest, _ := strings.Cut(string(line), " ")
	if first == "SIP/2.0" {
		status, phrase, _ := strings.Cut(rest, " ")
		return [2]string{status, phrase}
	}
	uri, _, _ := strings.Cut(rest, " ")
	return [2]string{first, uri}
}

// show registers what the endpoint counts.
func (e *Endpoint) show(m *plugin.Metrics) {
	received := func(kind string, read func(Counts) uint64) {
		e.counter(m, "sip_messages_received_total", "SIP messages that came, by what they were.", read, plugin.Label{Name: "kind", Value: kind})
	}
	received("request", func(c Counts) uint64 { return c.Requests })
	received("response", func(c Counts) uint64 { return c.Responses })
	received("keepalive", func(c Counts) uint64 { return c.KeepAlives })
	received("stun", func(c Counts) uint64 { return c.Bindings })
	received("malformed", func(c Counts) uint64 { return c.Malformed })
	received("too_large", func(c Counts) uint64 { return c.TooLarge })
	e.counter(m, "sip_messages_sent_total", "SIP messages that were sent.", func(c Counts) uint64 { return c.Sent })

	retransmissions := func(direction string, read func(Counts) uint64) {
		e.counter(m, "sip_retransmissions_total", "Requests that came again, or were sent again.", read, plugin.Label{Name: "direction", Value: direction})
	}
	retransmissions("received", func(c Counts) uint64 { return c.Retransmissions })
	retransmissions("sent", func(c Counts) uint64 { return c.Repeats })

	failed := func(kind string, read func(Counts) uint64) {
		e.counter(m, "sip_errors_total", "What should not happen, by kind.", read, plugin.Label{Name: "kind", Value: kind})
	}
	failed("read", func(c Counts) uint64 { return c.ReadErrors })
	failed("write", func(c Counts) uint64 { return c.WriteErrors })
	failed("unsafe", func(c Counts) uint64 { return c.Unsafe })
	failed("panic", func(c Counts) uint64 { return c.Panics })

	dropped := func(reason string, read func(Counts) uint64) {
		e.counter(m, "sip_messages_dropped_total", "Responses that nobody waits for, and messages whose connection was gone.", read, plugin.Label{Name: "reason", Value: reason})
	}
	dropped("unmatched", func(c Counts) uint64 { return c.Unmatched })
	dropped("lost", func(c Counts) uint64 { return c.Lost })

	e.showConnections(m)
	m.Gauge("sip_transactions_pending", "Requests without a final response.", func() float64 { return float64(e.server.pending.Load()) })
}

func (e *Endpoint) showConnections(m *plugin.Metrics) {
	for network, counters := range e.counters.networks {
		label := plugin.Label{Name: "network", Value: network}
		m.Gauge("sip_connections", "Connections that are open.", func() float64 { return float64(counters.now.Load()) }, label)
		m.CounterFunc("sip_connections_accepted_total", "Connections that were let in.", func() float64 { return float64(counters.accepted.Load()) }, label)
		for why, name := range causeNames {
			m.CounterFunc("sip_connections_closed_total", "Connections that ended, by why.",
				func() float64 { return float64(counters.ended[why].Load()) }, label, plugin.Label{Name: "reason", Value: name})
		}
	}
	for kind, p := range pressures {
		m.CounterFunc("sip_refused_total", "What was refused or dropped because there was too much, by why.",
			func() float64 { return float64(e.pressure.count(pressureKind(kind))) }, plugin.Label{Name: "reason", Value: p.name})
	}
}

func (e *Endpoint) counter(m *plugin.Metrics, name, help string, read func(Counts) uint64, labels ...plugin.Label) {
	m.CounterFunc(name, help, func() float64 { return float64(read(e.Counts())) }, labels...)
}
