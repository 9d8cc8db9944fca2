package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxFaults is how many faults of an import are named; the others are counted.
const maxFaults = 100

// faults are what is wrong with the rows of an import: the first ones, by line.
type faults struct {
	first []fault // in the order of their lines
	more  int     // how many besides
}

type fault struct {
	line int
	text string
}

// add takes faults in the order of their lines.
func (f *faults) add(line int, text string) {
	if len(f.first) == maxFaults {
		f.more++
		return
	}
	f.first = append(f.first, fault{line, text})
}

func (f *faults) any() bool { return len(f.first) > 0 }

// merge puts faults of other rows, or more faults of the same, in their places.
func (f *faults) merge(others faults) {
	f.first = append(f.first, others.first...)
	slices.SortStableFunc(f.first, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	f.more += others.more
	if beyond := len(f.first) - maxFaults; beyond > 0 {
		f.first, f.more = f.first[:maxFaults], f.more+beyond
	}
}

// text names the rows of a file, or their lines if the file has no name.
func (f *faults) text(file string) string {
	place := "line "
	if file != "" {
		place = file + ":"
	}
	var text strings.Builder
	for i, one := range f.first {
		if i > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "%s%d: %s", place, one.line, one.text)
	}
	if f.more > 0 {
		fmt.Fprintf(&text, "\nand %d more", f.more)
	}
	return text.String()
}
