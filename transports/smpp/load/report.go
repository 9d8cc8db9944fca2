package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// report is what a run found. Times are in milliseconds, sizes in octets.
type report struct {
	Mode       string  `json:"mode"`
	Binds      int     `json:"binds,omitempty"`
	Window     int     `json:"window,omitempty"`
	Rate       float64 `json:"rate,omitempty"`
	Size       int     `json:"size,omitempty"`
	Recipients int     `json:"recipients,omitempty"`

	// Measured after the warming up. With --sink there are no answers.
	Sent      uint64            `json:"sent"`
	Statuses  map[string]uint64 `json:"statuses,omitempty"` // by command_status
	Throttled uint64            `json:"throttled"`
	Timeouts  uint64            `json:"timeouts"`
	PerSecond float64           `json:"per_second"` // answered with ESME_ROK; with --sink, arrived
	LatencyMS quantiles         `json:"latency_ms"` // of the answer
	ArrivalMS quantiles         `json:"arrival_ms"` // from the submission to the SMSC
	Server    *process          `json:"server,omitempty"`
	Generator *process          `json:"generator,omitempty"`

	// Counted from the first message on.
	Acknowledged uint64 `json:"acknowledged"`
	Arrived      uint64 `json:"arrived"`
	Lost         uint64 `json:"lost"` // acknowledged and never arrived
	Duplicates   uint64 `json:"duplicates"`
	OutOfOrder   uint64 `json:"out_of_order"`
	Wrong        uint64 `json:"wrong"`  // with another text, or never sent
	Strays       uint64 `json:"strays"` // messages of somebody else
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

type process struct {
	MicrosPerMessage float64 `json:"cpu_us_per_message"`
	Resident         int64   `json:"resident"`
}

// The modes.
const (
	modeThrough = "ESME to SMSC"
	modeSink    = "sink"
)

func (s settings) report(t *tally, before, after sample) *report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &report{
		Mode: modeThrough, Binds: s.binds, Window: s.window, Rate: s.rate, Size: s.size, Recipients: s.recipients,
		Sent: t.sent, Statuses: map[string]uint64{}, Throttled: t.statuses[wire.RThrottled], Timeouts: t.timeouts,
		PerSecond: perSecond(t.taken, t.lastAnswer.Sub(t.began)),
		LatencyMS: t.answers.summary(), ArrivalMS: t.arrivals.summary(),
		Acknowledged: t.acked, Arrived: t.arrived, Lost: t.owed,
		Duplicates: t.duplicates, OutOfOrder: t.disordered, Wrong: t.damaged, Strays: t.strays,
	}
	for status, n := range t.statuses {
		r.Statuses[wire.StatusName(status)] = n
	}
	measured := t.sent
	if t.foreign {
		measured = t.counted
		r.Mode, r.Binds, r.Window, r.Rate, r.Size, r.Recipients = modeSink, 0, 0, 0, 0, 0
		r.PerSecond = perSecond(t.counted, t.lastArrival.Sub(t.began))
	}
	r.Server = spent(before.server, after.server, measured)
	r.Generator = spent(before.generator, after.generator, measured)
	return r
}

// perSecond is how many a second that is; 0 if no time passed.
func perSecond(n uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// spent is what a process used between two samples; nil: that isn't known.
func spent(before, after *usage, messages uint64) *process {
	if before == nil || after == nil || messages == 0 {
		return nil
	}
	return &process{
		MicrosPerMessage: float64((after.cpu - before.cpu).Microseconds()) / float64(messages),
		Resident:         after.resident,
	}
}

var errNothing = errors.New("not one message was taken")

// verdict is nil if everything that was acknowledged arrived once, unharmed.
func (r *report) verdict() error {
	switch {
	case r.Lost > 0:
		return fmt.Errorf("%d of %d acknowledged messages were lost", r.Lost, r.Acknowledged)
	case r.Wrong > 0:
		return fmt.Errorf("%d messages arrived with another text", r.Wrong)
	case r.Duplicates > 0:
		return fmt.Errorf("%d messages arrived twice", r.Duplicates)
	case r.Arrived == 0:
		return errNothing
	}
	return nil
}

func (r *report) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r *report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	if r.Mode == modeSink {
		row("mode", "%s", r.Mode)
		row("rate", "%.0f/s arrived", r.PerSecond)
	} else {
		row("mode", "%s, %s, %d binds, %d recipients, %d octets", r.Mode, r.load(), r.Binds, r.Recipients, r.Size)
		row("sent", "%d", r.Sent)
		for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
			row("  answered "+status, "%d", r.Statuses[status])
		}
		row("  timeouts", "%d", r.Timeouts)
		row("rate", "%.0f/s", r.PerSecond)
		row("latency of answers", "%s", r.LatencyMS)
		row("latency of arrivals", "%s", r.ArrivalMS)
	}
	row("server", "%s", r.Server)
	row("generator", "%s", r.Generator)
	row("all, with warming up", "")
	if r.Mode != modeSink {
		row("  acknowledged", "%d", r.Acknowledged)
	}
	row("  arrived", "%d", r.Arrived)
	if r.Mode != modeSink {
		row("  lost", "%d", r.Lost)
	}
	row("  duplicates", "%d", r.Duplicates)
	row("  out of order", "%d", r.OutOfOrder)
	row("  wrong", "%d", r.Wrong)
	row("  strays", "%d", r.Strays)
	return t.Flush()
}

func (r *report) load() string {
	if r.Rate > 0 {
		return fmt.Sprintf("open loop at %.0f/s", r.Rate)
	}
	return fmt.Sprintf("closed loop with window %d", r.Window)
}

// String writes latencies for a table.
func (q quantiles) String() string {
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms", q.P50, q.P99, q.Max)
}

// String writes a process's usage for a table; nil is one that isn't known.
func (p *process) String() string {
	if p == nil {
		return "not known"
	}
	return fmt.Sprintf("%.1f µs CPU a message, %d MB resident", p.MicrosPerMessage, p.Resident>>20)
}
