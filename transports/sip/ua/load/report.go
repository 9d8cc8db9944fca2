package load

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/imgate/imgate/transports/sip/ua/internal/process"
)

// report is what a run found. Times are in milliseconds, sizes in octets.
type report struct {
	Mode    string  `json:"mode"`
	Users   int     `json:"users"`
	Pairs   int     `json:"pairs"`
	Sockets int     `json:"sockets"`
	Window  int     `json:"window,omitempty"`
	Rate    float64 `json:"rate,omitempty"`
	Size    int     `json:"size"`

	// Measured after the warming up.
	Sent      uint64            `json:"sent"`
	Finals    map[string]uint64 `json:"finals"` // by status code
	Timeouts  uint64            `json:"timeouts"`
	PerSecond float64           `json:"per_second"` // answered by 2xx
	LatencyMS latencies         `json:"latency_ms"`
	Server    *cost             `json:"server,omitempty"`
	Generator *cost             `json:"generator,omitempty"`

	// Counted from the first message on.
	Repeats      int    `json:"repeats"` // requests sent again for want of an answer
	Acknowledged uint64 `json:"acknowledged"`
	Delivered    uint64 `json:"delivered"`
	Lost         uint64 `json:"lost"` // acknowledged and never arrived
	Duplicates   uint64 `json:"duplicates"`
	OutOfOrder   uint64 `json:"out_of_order"`
	Wrong        uint64 `json:"wrong"`  // at another contact, or with another body
	Strays       uint64 `json:"strays"` // messages of somebody else

	Drain *drain `json:"drain,omitempty"`

	FailOver *failOver `json:"fail_over,omitempty"` // with several servers
}

// failOver is how a run went over several servers, from the first message on.
type failOver struct {
	AnswerGap  float64 `json:"longest_answer_gap_ms"`  // between two that were answered by 2xx
	ArrivalGap float64 `json:"longest_arrival_gap_ms"` // between two that arrived
	Unsure     int     `json:"unsure"`                 // challenged anew though another server may have taken them
	Servers    []tried `json:"servers"`
}

// tried is what became of the requests to one server.
type tried struct {
	Server      string `json:"server"`
	Requests    uint64 `json:"requests"`
	Unavailable uint64 `json:"unavailable"` // answered 503
	Silent      uint64 `json:"silent"`      // left for another server
}

type latencies struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

type cost struct {
	MicrosPerMessage float64 `json:"cpu_us_per_message"`
	Resident         int64   `json:"resident"`
	Peak             int64   `json:"resident_peak"`
}

// drain is how kept messages arrived once the recipients were registered; its
// time includes the registrations.
type drain struct {
	Delivered uint64  `json:"delivered"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	Server    *cost   `json:"server,omitempty"`
	Generator *cost   `json:"generator,omitempty"`
}

func (r *run) report(before, after sample) *report {
	t := r.tally
	result := &report{
		Mode: r.mode, Users: r.accounts, Pairs: len(r.pairs), Sockets: r.sockets,
		Window: r.window, Rate: r.rate, Size: r.size,
		Sent: t.sent, Finals: map[string]uint64{}, Timeouts: t.timeouts,
		PerSecond: perSecond(t.successes, t.lastFinal.Sub(t.began)),
		LatencyMS: latencies{millis(t.latencies.quantile(0.5)), millis(t.latencies.quantile(0.99)), millis(t.latencies.longest)},
	}
	for code, n := range t.finals {
		result.Finals[strconv.Itoa(code)] = n
	}
	result.Server = spent(before.server, after.server, t.sent)
	result.Generator = spent(before.generator, after.generator, t.sent)
	r.addDeliveries(result)
	return result
}

// addDeliveries fills in what is only known when all has arrived.
func (r *run) addDeliveries(result *report) {
	t := r.tally
	result.Repeats = 0
	for _, e := range r.endpoints {
		result.Repeats += e.repeats
	}
	result.Acknowledged, result.Delivered, result.Lost = t.acked, t.arrived, t.owed
	result.Duplicates, result.OutOfOrder, result.Wrong, result.Strays = t.duplicates, t.disordered, t.wrong, t.strays
	r.addFailOver(result)
}

// addFailOver fills in what there is to say of several servers.
func (r *run) addFailOver(result *report) {
	if len(r.servers) == 1 {
		return
	}
	f := &failOver{AnswerGap: millis(r.tally.answerGap), ArrivalGap: millis(r.tally.arrivalGap)}
	for i, name := range r.servers {
		t := tried{Server: name}
		for _, e := range r.endpoints {
			t.Requests += e.remotes[i].requests
			t.Unavailable += e.remotes[i].unavailable
			t.Silent += e.remotes[i].silent
		}
		f.Servers = append(f.Servers, t)
	}
	for _, e := range r.endpoints {
		f.Unsure += e.unsure
	}
	result.FailOver = f
}

func (r *run) addDrain(result *report, before, after sample) {
	r.addDeliveries(result)
	took := r.tally.lastArrival.Sub(r.tally.counting)
	n := r.tally.counted
	result.Drain = &drain{
		Delivered: n, Seconds: took.Seconds(), PerSecond: perSecond(n, took),
		Server:    spent(before.server, after.server, n),
		Generator: spent(before.generator, after.generator, n),
	}
}

// spent is what a process used between two samples; nil: that isn't known.
func spent(before, after *process.Usage, messages uint64) *cost {
	if before == nil || after == nil || messages == 0 {
		return nil
	}
	cpu := after.CPU - before.CPU
	return &cost{
		MicrosPerMessage: float64(cpu.Microseconds()) / float64(messages),
		Resident:         after.Resident, Peak: after.Peak,
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// verdict is nil if everything that was acknowledged arrived, unharmed.
func (r *report) verdict() error {
	switch {
	case r.Lost > 0:
		return fmt.Errorf("%d of %d acknowledged messages were lost", r.Lost, r.Acknowledged)
	case r.Wrong > 0:
		return fmt.Errorf("%d messages arrived at the wrong contact or with another body", r.Wrong)
	case r.Acknowledged == 0:
		return fmt.Errorf("not one message was taken")
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
	row("mode", "%s, %s, %d users, %d pairs, %d octets, %d sockets", r.Mode, r.load(), r.Users, r.Pairs, r.Size, r.Sockets)
	row("sent", "%d", r.Sent)
	for _, code := range slices.Sorted(maps.Keys(r.Finals)) {
		row("  answered "+code, "%d", r.Finals[code])
	}
	row("  timeouts", "%d", r.Timeouts)
	row("rate", "%.0f/s", r.PerSecond)
	row("latency", "p50 %.2f ms, p99 %.2f ms, max %.2f ms", r.LatencyMS.P50, r.LatencyMS.P99, r.LatencyMS.Max)
	row("server", "%s", r.Server)
	row("generator", "%s", r.Generator)
	if d := r.Drain; d != nil {
		row("drain", "%.0f/s, %d messages in %.2f s", d.PerSecond, d.Delivered, d.Seconds)
		row("  server", "%s", d.Server)
		row("  generator", "%s", d.Generator)
	}
	row("all, with warming up", "")
	row("  acknowledged", "%d", r.Acknowledged)
	row("  delivered", "%d", r.Delivered)
	row("  lost", "%d", r.Lost)
	row("  duplicates", "%d", r.Duplicates)
	row("  out of order", "%d", r.OutOfOrder)
	row("  wrong", "%d", r.Wrong)
	row("  strays", "%d", r.Strays)
	row("  repeated requests", "%d", r.Repeats)
	if f := r.FailOver; f != nil {
		row("longest gap", "%.0f ms between answers, %.0f ms between arrivals", f.AnswerGap, f.ArrivalGap)
		row("  sent anew, may be twice", "%d", f.Unsure)
		for _, s := range f.Servers {
			row("  "+s.Server, "%d requests, %d answered 503, %d without an answer in time", s.Requests, s.Unavailable, s.Silent)
		}
	}
	return t.Flush()
}

func (r *report) load() string {
	if r.Rate > 0 {
		return fmt.Sprintf("open loop at %.0f/s", r.Rate)
	}
	return fmt.Sprintf("closed loop with window %d", r.Window)
}

// String writes a process's usage for a table; nil is one that isn't known.
func (p *cost) String() string {
	if p == nil {
		return "not known"
	}
	const mb = 1 << 20
	return fmt.Sprintf("%.1f µs CPU a message, %d MB resident, peak %d MB", p.MicrosPerMessage, p.Resident/mb, p.Peak/mb)
}
