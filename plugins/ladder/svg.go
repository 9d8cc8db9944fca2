package ladder

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// Sizes of the diagram as SVG, in pixels.
const (
	svgGutter  = 140 // time, call and network
	svgSlot    = 290 // from column to column
	svgMargin  = 24
	svgLine    = 22 // of the heading and the legend
	svgNames   = 34 // the boxes with the columns' names
	svgRow     = 36
	svgNoteGap = 28
	svgChar    = 8 // a character's width, about
	// svgColours is how many calls have a colour of their own.
	svgColours = 6
)

// svgStyle makes the diagram readable on a light and on a dark ground.
const svgStyle = `
  text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2937 }
  .ground { fill: #ffffff }
  .heading { font-weight: 600 }
  .faint { fill: #6b7280 }
  .time { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; fill: #6b7280 }
  .life { stroke: #cbd5e1; stroke-width: 1.5 }
  .name { fill: #f1f5f9; stroke: #94a3b8 }
  .us { fill: #1e3a5f; stroke: #1e3a5f }
  .usname { fill: #ffffff; font-weight: 600 }
  .label { stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
  .arrow { stroke-width: 1.6; fill: none }
  .dashed { stroke-dasharray: 5 4 }
  .note { stroke-width: 1 }
  .neutral { fill: #f8fafc; stroke: #94a3b8 }
  .good { fill: #dcfce7; stroke: #16a34a }
  .bad { fill: #fee2e2; stroke: #dc2626 }
  .c0 { stroke: #2563eb } .c1 { stroke: #c2410c } .c2 { stroke: #15803d }
  .c3 { stroke: #7e22ce } .c4 { stroke: #a16207 } .c5 { stroke: #be185d }
  .h0 { fill: #2563eb } .h1 { fill: #c2410c } .h2 { fill: #15803d }
  .h3 { fill: #7e22ce } .h4 { fill: #a16207 } .h5 { fill: #be185d }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb }
    .ground { fill: #12161c }
    .faint, .time { fill: #9ca3af }
    .life { stroke: #3b4553 }
    .name { fill: #1f2733; stroke: #64748b }
    .us { fill: #93b4dd; stroke: #93b4dd }
    .usname { fill: #0b1220 }
    .label { stroke: #12161c }
    .neutral { fill: #1b222c; stroke: #64748b }
    .good { fill: #0f2f1d; stroke: #22c55e }
    .bad { fill: #3a1518; stroke: #f87171 }
    .c0 { stroke: #7aa7ff } .c1 { stroke: #fb923c } .c2 { stroke: #4ade80 }
    .c3 { stroke: #c084fc } .c4 { stroke: #facc15 } .c5 { stroke: #f472b6 }
    .h0 { fill: #7aa7ff } .h1 { fill: #fb923c } .h2 { fill: #4ade80 }
    .h3 { fill: #c084fc } .h4 { fill: #facc15 } .h5 { fill: #f472b6 }
  }
`

// svgDrawing is an SVG in the making.
type svgDrawing struct {
	bytes.Buffer
	diagram
	y int // where the next thing goes
}

// drawSVG draws a diagram as an SVG that needs nothing else: no script, no
// font, no link.
func drawSVG(d diagram) []byte {
	s := &svgDrawing{diagram: d}
	width, height := s.width(), s.height()
	s.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n", width, height, width, height)
	s.printf("<title>%s</title>\n<style>%s</style>\n", html.EscapeString(strings.Join(d.heading, ", ")), svgStyle)
	s.printf(`<rect class="ground" width="%d" height="%d"/>`+"\n", width, height)
	s.y = svgMargin
	s.drawHeading()
	s.drawLife()
	s.drawNames()
	for i := range d.rows {
		s.drawRow(&d.rows[i])
	}
	s.drawLegend()
	s.printf("</svg>\n")
	return s.Bytes()
}

func (s *svgDrawing) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }

// width leaves room for notes right of us and for the heading.
func (s *svgDrawing) width() int {
	columns := max(len(s.columns), s.gateway+2, 3)
	return svgGutter + columns*svgSlot + svgMargin
}

func (s *svgDrawing) height() int {
	return 3*svgMargin + len(s.heading)*svgLine + svgNames + svgLine + s.rowsHeight() + len(s.legend())*svgLine
}

func (s *svgDrawing) rowsHeight() (height int) {
	for i := range s.rows {
		height += s.rows[i].height()
	}
	return height
}

func (r *row) height() int {
	if r.note {
		return svgNoteGap
	}
	return svgRow
}

func (s *svgDrawing) x(column int) int { return svgGutter + column*svgSlot + svgSlot/2 }

func (s *svgDrawing) drawHeading() {
	for i, line := range s.heading {
		class := "heading"
		if i == len(s.heading)-1 {
			class = "faint"
		}
		s.text(svgMargin, s.y+14, class, "start", line)
		s.y += svgLine
	}
	s.y += svgMargin / 2
}

// drawLife draws the columns' lines, below everything else.
func (s *svgDrawing) drawLife() {
	end := s.y + svgNames + svgNoteGap/2 + s.rowsHeight()
	for i := range s.columns {
		s.printf(`<line class="life" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", s.x(i), s.y+svgNames, s.x(i), end)
	}
}

func (s *svgDrawing) drawNames() {
	for i, name := range s.columns {
		box, label := "name", ""
		if i == s.gateway {
			box, label = "us", "usname"
		}
		name = fitName(name, charsIn(svgSlot-30))
		width := textPixels(name) + 16
		s.printf(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="5"/>`+"\n", box, s.x(i)-width/2, s.y, width, svgNames-6)
		s.text(s.x(i), s.y+19, label, "middle", name)
	}
	s.y += svgNames + 4
}

func (s *svgDrawing) drawRow(r *row) {
	s.printf("<g><title>%s %s</title>\n", html.EscapeString(sinceText(r.at)), html.EscapeString(r.label))
	if r.note {
		s.drawNote(r)
	} else {
		s.drawArrow(r)
	}
	s.printf("</g>\n")
	s.y += r.height()
}

func (s *svgDrawing) drawNote(r *row) {
	label := fit(r.label, charsIn(2*svgSlot-40))
	width := textPixels(label) + 12
	middle := s.y + svgNoteGap/2
	s.text(svgMargin+80, middle+4, "time", "end", sinceText(r.at))
	s.printf(`<rect class="note %s" x="%d" y="%d" width="%d" height="20" rx="10"/>`+"\n",
		[...]string{"neutral", "good", "bad"}[r.mood], s.x(s.gateway)-width/2, middle-10, width)
	s.text(s.x(s.gateway), middle+4, "", "middle", label)
}

func (s *svgDrawing) drawArrow(r *row) {
	line := s.y + svgRow - 10
	from, to := s.x(r.from), s.x(r.to)
	left, right := min(from, to), max(from, to)
	colour, dashed := r.call%svgColours, ""
	if r.repeat {
		dashed = " dashed"
	}
	s.text(svgMargin+80, line+4, "time", "end", sinceText(r.at))
	s.text(svgMargin+92, line+4, fmt.Sprintf("time h%d", colour), "start", letter(r.call)+" "+r.network)
	s.printf(`<line class="arrow c%d%s" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", colour, dashed, from, line, to, line)
	back := 9
	if from < to {
		back = -9
	}
	s.printf(`<path class="h%d" d="M%d %d l%d -5 v10 z"/>`+"\n", colour, to, line, back)
	s.text((left+right)/2, line-7, "label", "middle", fit(r.label, charsIn(right-left-30)))
}

// legend is what stands below the diagram.
func (s *svgDrawing) legend() (lines []string) {
	for i, call := range s.calls {
		lines = append(lines, letter(i)+"  "+call)
	}
	return append(lines, s.remarks()...)
}

func (s *svgDrawing) drawLegend() {
	s.y += svgMargin + svgNoteGap/2
	for i, line := range s.legend() {
		class := "time"
		if i < len(s.calls) {
			class = fmt.Sprintf("time h%d", i%svgColours)
		}
		s.text(svgMargin, s.y+8, class, "start", line)
		s.y += svgLine
	}
}

func (s *svgDrawing) text(x, y int, class, anchor, text string) {
	s.printf(`<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}

// textPixels estimates how wide a text is drawn.
func textPixels(s string) int { return len([]rune(s)) * svgChar }

// charsIn is how many characters have room in so many pixels.
func charsIn(pixels int) int { return pixels / svgChar }
