package ladder

import (
	"fmt"
	"io"
	"strings"
)

// Sizes of the diagram as text, in characters.
const (
	textWidth  = 100
	textGutter = 18 // time, call and network
	textEdge   = 9  // for one half of the outermost names
)

// canvas is one line of text, drawn in any order.
type canvas []rune

func newCanvas() canvas { return []rune(strings.Repeat(" ", textWidth)) }

// put writes a text that begins at x; what doesn't fit is left out.
func (c canvas) put(x int, s string) {
	for _, r := range s {
		if x >= 0 && x < len(c) {
			c[x] = r
		}
		x++
	}
}

func (c canvas) String() string { return strings.TrimRight(string(c), " ") }

// textLayout is where the columns stand.
type textLayout struct {
	diagram
	slot int // from column to column
}

func newTextLayout(d diagram) textLayout {
	n := len(d.columns)
	if d.gateway == n-1 {
		n++ // nobody stands right of us: room for notes
	}
	return textLayout{d, (textWidth - textGutter - 2*textEdge - 1) / (n - 1)}
}

// x is where a column's line stands.
func (l textLayout) x(column int) int { return textGutter + textEdge + column*l.slot }

// writeText draws a diagram in at most 100 columns.
func writeText(out io.Writer, d diagram) error {
	l := newTextLayout(d)
	var b strings.Builder
	for _, line := range d.heading {
		fmt.Fprintln(&b, fit(line, textWidth))
	}
	fmt.Fprintf(&b, "\n%s\n", l.names())
	for i := range d.rows {
		fmt.Fprintln(&b, l.row(&d.rows[i]))
	}
	fmt.Fprintf(&b, "%s\n", l.lines())
	fmt.Fprintln(&b)
	for i, call := range d.calls {
		fmt.Fprintln(&b, fit(fmt.Sprintf("%-2s %s", letter(i), call), textWidth))
	}
	for _, line := range d.remarks() {
		fmt.Fprintln(&b, line)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (l textLayout) names() canvas {
	c := newCanvas()
	for i, name := range l.columns {
		name = fitName(name, min(l.slot-1, 2*textEdge+1))
		c.put(l.x(i)-len([]rune(name))/2, name)
	}
	return c
}

func (l textLayout) lines() canvas {
	c := newCanvas()
	for i := range l.columns {
		c.put(l.x(i), "│")
	}
	return c
}

func (l textLayout) row(r *row) canvas {
	c := l.lines()
	c.put(0, fmt.Sprintf("%11s", sinceText(r.at)))
	if r.note {
		l.note(c, r)
		return c
	}
	c.put(12, fmt.Sprintf("%-2s %s", letter(r.call), r.network))
	l.arrow(c, r)
	return c
}

func (l textLayout) note(c canvas, r *row) {
	x := l.x(l.gateway)
	label := fit(r.label, textWidth-x-2)
	c.put(x, "● "+label)
	if after := x + 2 + len([]rune(label)); after < len(c) {
		c[after] = ' ' // a line right behind it reads like a letter
	}
}

func (l textLayout) arrow(c canvas, r *row) {
	left, right := l.x(min(r.from, r.to)), l.x(max(r.from, r.to))
	line := "─"
	if r.repeat {
		line = "╌"
	}
	room := right - left - 1
	c.put(left+1, strings.Repeat(line, max(room, 0)))
	if r.from < r.to {
		c.put(right-1, ">")
	} else {
		c.put(left+1, "<")
	}
	label := fit(r.label, room-4)
	if label == "" {
		return
	}
	label = " " + label + " "
	c.put(left+1+(room-len([]rune(label)))/2, label)
}
