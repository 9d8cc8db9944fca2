package ladder

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// maxPeers is how many peers have a column of their own; the others share one.
const maxPeers = 4

// others heads the column of the peers that have none of their own.
const others = "others"

// again marks what has been said before.
const again = "↻"

// diagram is a trace laid out for drawing, in whatever medium.
type diagram struct {
	heading   []string
	columns   []string
	gateway   int // our column
	calls     []string
	rows      []row
	repeats   bool // there are some
	truncated bool
}

// row is one line of a diagram: an arrow between two columns, or a note in ours.
type row struct {
	at       time.Duration // since the first row
	note     bool
	from, to int // columns
	call     int // of an arrow
	network  string
	label    string
	repeat   bool
	mood     mood
}

// mood is how a row is coloured.
type mood uint8

const (
	neutral mood = iota
	good
	bad
)

func newDiagram(t trace) diagram {
	d := diagram{truncated: t.Truncated, heading: headingOf(t)}
	d.columns = columnsOf(t.Parties)
	d.gateway = slices.Index(d.columns, gateway)
	for i := range t.Events {
		e := &t.Events[i]
		r := row{at: e.Time.Sub(t.Events[0].Time)}
		if e.isPacket() {
			d.arrow(&r, e)
		} else {
			r.note, r.from, r.to = true, d.gateway, d.gateway
			r.label, r.mood = noteOf(e, t.Messages), moodOf(e)
		}
		d.rows = append(d.rows, r)
	}
	d.columns[d.gateway] = strings.TrimSpace(gateway + " " + strings.Join(transportsOf(t), "+"))
	return d
}

// transportsOf lists our doors that packets went through.
func transportsOf(t trace) (names []string) {
	for i := range t.Events {
		if e := &t.Events[i]; e.isPacket() && !slices.Contains(names, e.Transport) {
			names = append(names, e.Transport)
		}
	}
	return names
}

func headingOf(t trace) (lines []string) {
	for i, m := range t.Messages {
		lines = append(lines, fmt.Sprintf("%smessage %s  %s → %s", ordinal(i, t.Messages), m.ID, m.From, m.To))
	}
	if len(t.Events) > 0 {
		lines = append(lines, "from "+t.Events[0].Time.UTC().Format("2006-01-02 15:04:05.000000 MST"))
	}
	return lines
}

// ordinal tells messages apart where there are several.
func ordinal(i int, all []traced) string {
	if len(all) < 2 {
		return ""
	}
	return fmt.Sprintf("#%d ", i+1)
}

// columnsOf gives the first peers columns of their own.
func columnsOf(parties []string) []string {
	var columns []string
	peers, shared := 0, false
	for _, party := range parties {
		if party != gateway {
			peers++
		}
		if party == gateway || peers <= maxPeers {
			columns = append(columns, party)
		} else {
			shared = true
		}
	}
	if !slices.Contains(columns, gateway) {
		columns = append(columns, gateway)
	}
	if shared {
		columns = append(columns, others)
	}
	return columns
}

// column finds a party's column; alone is false if others are in it.
func (d *diagram) column(party string) (at int, alone bool) {
	if at = slices.Index(d.columns, party); at >= 0 {
		return at, true
	}
	return len(d.columns) - 1, false
}

func (d *diagram) arrow(r *row, e *event) {
	from, fromAlone := d.column(e.From)
	to, toAlone := d.column(e.To)
	r.from, r.to, r.network, r.repeat = from, to, e.Network, e.Repeat
	r.label = strings.TrimSpace(e.What + " " + e.Detail)
	switch {
	case !fromAlone:
		r.label = e.From + ": " + r.label
	case !toAlone:
		r.label = e.To + ": " + r.label
	}
	if e.Repeat {
		r.label = again + " " + r.label
		d.repeats = true
	}
	r.call = slices.Index(d.calls, e.Call)
	if r.call < 0 {
		r.call = len(d.calls)
		d.calls = append(d.calls, e.Call)
	}
}

// noteOf says in a few words what has happened.
func noteOf(e *event, all []traced) string {
	i := slices.IndexFunc(all, func(m traced) bool { return e.Message != nil && m.ID == *e.Message })
	words := e.What
	switch plugin.StepName(e.What) {
	case plugin.StepReceived:
		words += " over " + e.Transport
	case plugin.StepDecided:
		words += " by " + cmp.Or(e.Service, "no service")
	case plugin.StepAttempted:
		words = fmt.Sprintf("attempt %d over %s", e.Attempt, e.Transport)
	}
	words = ordinal(i, all) + words
	if e.failed() {
		words += ": " + e.Reason
	}
	if e.Took > 0 {
		words += " (" + tookText(time.Duration(e.Took)*time.Microsecond) + ")"
	}
	return words
}

func moodOf(e *event) mood {
	switch plugin.StepName(e.What) {
	case plugin.StepDelivered, plugin.StepHandedOver:
		return good
	case plugin.StepWaiting:
		return neutral
	case plugin.StepRefused, plugin.StepFailed, plugin.StepQuarantined:
		return bad
	}
	if e.failed() && message.Reason(e.Reason) != message.Unavailable {
		return bad
	}
	return neutral
}

// remarks are what stands below a diagram.
func (d *diagram) remarks() (lines []string) {
	if d.repeats {
		lines = append(lines, again+"  said again: the same, octet for octet")
	}
	if d.truncated {
		lines = append(lines, "This isn't all: there is more, or the beginning is forgotten.")
	}
	return lines
}

// letter names a call: A to Z, then A1, B1, …
func letter(call int) string {
	name := string(rune('A' + call%26))
	if call >= 26 {
		name += fmt.Sprint(call / 26)
	}
	return name
}

// tookText is a duration to three digits, such as "1.2 ms".
func tookText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1e3)
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// sinceText is a time since the first row, at most 11 characters.
func sinceText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("+%.3f ms", float64(d.Microseconds())/1e3)
	case d < time.Minute:
		return fmt.Sprintf("+%.3f s", d.Seconds())
	case d < time.Hour:
		return "+" + d.Round(time.Millisecond).String()
	}
	return "+" + d.Round(time.Second).String()
}

// fit cuts a text to n characters at its end.
func fit(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string(runes[:n-1]) + "…"
}

// fitName cuts an address in its middle: its port tells peers apart.
func fitName(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	if n < 3 {
		return fit(s, n)
	}
	tail := (n - 1) / 2
	return string(runes[:n-1-tail]) + "…" + string(runes[len(runes)-tail:])
}
