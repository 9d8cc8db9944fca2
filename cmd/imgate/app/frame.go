package app

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// style is how a line looks, all of it.
type style uint8

const (
	plain style = iota
	title
	alarm
)

// line is one line of a frame.
type line struct {
	text  string
	style style
}

// View implements tea.Model.
func (t *top) View() string {
	lines := append(t.frame(t.width, t.height-1), line{text: clip("q quits", t.width)})
	shown := make([]string, len(lines))
	for i, l := range lines {
		shown[i] = l.text
		if t.dyes {
			shown[i] = dyed(l)
		}
	}
	return strings.Join(shown, "\n")
}

// dyed adds the colours that every terminal has (ECMA-48 §8.3.117).
func dyed(l line) string {
	switch l.style {
	case title:
		return "\x1b[1m" + l.text + "\x1b[0m"
	case alarm:
		return "\x1b[1;31m" + l.text + "\x1b[0m"
	}
	return l.text
}

// frame draws what was seen last. It is at most so wide and high; what has no
// room is left out, from the end.
func (t *top) frame(width, height int) []line {
	lines := t.body(width)
	lines = lines[:min(len(lines), max(height, 0))]
	for i := range lines {
		lines[i].text = clip(lines[i].text, width)
	}
	return lines
}

// clip cuts a text to a width. All that is shown has one column a character.
func clip(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width, 0)])
}

func (t *top) body(width int) []line {
	if len(t.seen) == 0 {
		return append([]line{{"imgate top", title}}, t.notices(nil)...)
	}
	now := t.seen[len(t.seen)-1]
	before := t.seen[max(0, len(t.seen)-2)]
	v := view{now, before.scrape, t.seen[0].scrape}

	lines := append([]line{{v.heading(), title}}, t.notices(now)...)
	lines = append(lines, line{})
	lines = append(lines, beside(v.messages(), v.latencies(), width)...)
	lines = append(lines, line{})
	lines = append(lines, beside(v.spool(), v.process(), width)...)
	lines = append(lines, line{})
	lines = append(lines, v.transports()...)
	lines = append(lines, line{})
	return append(lines, v.refusals()...)
}

// notices are what somebody who watches mustn't overlook.
func (t *top) notices(now *sight) []line {
	var lines []line
	switch {
	case t.err != nil:
		return []line{{"not reachable, trying again: " + printable(t.err.Error()), alarm}}
	case now == nil:
		return []line{{text: "looking for the server"}}
	}
	if len(now.reasons) > 0 {
		lines = append(lines, line{now.readiness(), now.urgency()})
	}
	if now.total("storage_failing") > 0 {
		lines = append(lines, line{"the storage fails: new messages are refused", alarm})
	}
	if n := now.total("spool_quarantined"); n > 0 {
		lines = append(lines, line{fmt.Sprintf("%s in quarantine: see imgate message list --state quarantined", grouped(n)), alarm})
	}
	return lines
}

// urgency is how a node is shown that isn't ready: a standby is as it should be.
func (s *sight) urgency() style {
	if len(s.reasons) == 1 && standsBy(s.reasons) {
		return title
	}
	return alarm
}

// view compares what is with what was.
type view struct {
	*sight
	before *scrape // one look ago
	longer *scrape // up to latencyWindow looks ago
}

func (v view) heading() string {
	parts := []string{"imgate top", "node " + v.node, v.address}
	if up := v.uptime(); up > 0 {
		parts = append(parts, "up "+up.String())
	}
	return strings.Join(append(parts, printable(v.version())), "   ")
}

func (v view) perSecond(name string, labels ...string) float64 {
	return v.rate(v.before, metricPrefix+name, labels...)
}

// messages are the counts of what goes through.
func (v view) messages() []line {
	lines := []line{{fmt.Sprintf("%-14s%12s%14s", "MESSAGES", "PER SECOND", "IN ALL"), title}}
	for _, m := range []struct {
		what, name string
		labels     []string
	}{
		{"received", "messages_received_total", nil},
		{"accepted", "messages_accepted_total", nil},
		{"refused", "messages_refused_total", nil},
		{"delivered", "messages_ended_total", []string{"outcome", "delivered"}},
		{"failed", "messages_ended_total", []string{"outcome", "failed"}},
	} {
		lines = append(lines, line{text: fmt.Sprintf("%-14s%12s%14s", m.what,
			shownRate(v.perSecond(m.name, m.labels...)), grouped(v.total(m.name, m.labels...)))})
	}
	return lines
}

// latencies are estimates over the last seconds.
func (v view) latencies() []line {
	lines := []line{{fmt.Sprintf("%-14s%10s%10s", "LATENCY", "P50", "P99"), title}}
	for _, h := range [][2]string{
		{"policy", "policy_decision_seconds"},
		{"charging", "charging_authorize_seconds"},
		{"commit", "storage_commit_seconds"},
		{"delivery", "delivery_attempt_seconds"},
		{"whole message", "message_seconds"},
	} {
		q := v.quantiles(v.longer, []float64{0.5, 0.99}, metricPrefix+h[1])
		lines = append(lines, line{text: fmt.Sprintf("%-14s%10s%10s", h[0], shownLatency(q[0]), shownLatency(q[1]))})
	}
	return lines
}

// pairs are names with values.
func pairs(heading string, rows ...[2]string) []line {
	lines := []line{{heading, title}}
	for _, r := range rows {
		lines = append(lines, line{text: fmt.Sprintf("%-22s%18s", r[0], r[1])})
	}
	return lines
}

func (v view) spool() []line {
	return pairs("SPOOL",
		[2]string{"messages", grouped(v.total("spool_messages"))},
		[2]string{"oldest has waited", v.oldest().String()},
		[2]string{"in quarantine", grouped(v.total("spool_quarantined"))},
		[2]string{"lanes", grouped(v.total("lanes"))},
		[2]string{"lanes asleep", grouped(v.total("lanes_asleep"))},
		[2]string{"bindings", grouped(v.total("bindings"))},
	)
}

func (v view) process() []line {
	const megabyte = 1e6
	return []line{
		{"PROCESS", title},
		{text: fmt.Sprintf("%-18s%16s", "connections", grouped(v.total("sip_connections")))},
		{text: fmt.Sprintf("%-18s%16s", "CPU", fmt.Sprintf("%.0f %%", 100*v.rate(v.before, "process_cpu_seconds_total")))},
		{text: fmt.Sprintf("%-18s%16s", "memory", grouped(int64(v.sum("process_resident_memory_bytes")/megabyte))+" MB")},
		{text: fmt.Sprintf("%-18s%16s", "goroutines", grouped(int64(v.sum("go_goroutines"))))},
		{text: fmt.Sprintf("%-18s%16s", "commits per second", shownRate(v.perSecond("storage_commits_total")))},
		{text: fmt.Sprintf("%-18s%16s", "commits failed", grouped(v.total("storage_commit_errors_total")))},
	}
}

// transports compares the doors, in messages per second.
func (v view) transports() []line {
	lines := []line{{fmt.Sprintf("%-22s%14s%14s%14s", "TRANSPORT, PER SECOND", "RECEIVED", "REFUSED", "ATTEMPTS"), title}}
	for _, name := range v.values("transport", metricPrefix+"messages_received_total", metricPrefix+"messages_refused_total", metricPrefix+"delivery_attempts_total") {
		lines = append(lines, line{text: fmt.Sprintf("%-22s%14s%14s%14s", clip(printable(name), 21),
			shownRate(v.perSecond("messages_received_total", "transport", name)),
			shownRate(v.perSecond("messages_refused_total", "transport", name)),
			shownRate(v.perSecond("delivery_attempts_total", "transport", name)))})
	}
	return lines
}

// refusals are why messages are refused, what counts most now first.
func (v view) refusals() []line {
	const name = "messages_refused_total"
	lines := []line{{fmt.Sprintf("%-22s%14s%14s", "REFUSED BECAUSE", "PER SECOND", "IN ALL"), title}}
	totals := v.totals(name, "reason")
	rates := map[string]float64{}
	for reason := range totals {
		rates[reason] = v.perSecond(name, "reason", reason)
	}
	for _, reason := range byCount(rates) {
		lines = append(lines, line{text: fmt.Sprintf("%-22s%14s%14s", clip(printable(reason), 21), shownRate(rates[reason]), grouped(totals[reason]))})
	}
	if len(totals) == 0 {
		lines = append(lines, line{text: "nothing was refused"})
	}
	return lines
}

// leftColumn is how wide the left one of two blocks is, and twoColumns how wide
// a frame that has room for both.
const (
	leftColumn = 44
	twoColumns = 78
)

// beside puts two blocks side by side if there is room, else one under the
// other.
func beside(left, right []line, width int) []line {
	if width < twoColumns {
		return append(append(left, line{}), right...)
	}
	lines := make([]line, max(len(left), len(right)))
	for i := range lines {
		var l, r line
		if i < len(left) {
			l = left[i]
		}
		if i < len(right) {
			r = right[i]
		}
		lines[i] = line{strings.TrimRight(fmt.Sprintf("%-*s%s", leftColumn, l.text, r.text), " "), max(l.style, r.style)}
	}
	return lines
}

func shownRate(perSecond float64) string {
	if perSecond < 100 {
		return fmt.Sprintf("%.1f", perSecond)
	}
	return grouped(int64(perSecond + 0.5))
}

func shownLatency(e estimate) string {
	switch {
	case !e.known:
		return "-"
	case e.longer:
		return "> " + shownDuration(e.duration)
	}
	return shownDuration(e.duration)
}

func shownDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
