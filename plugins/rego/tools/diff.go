package tools

import (
	"fmt"
	"strings"
)

const (
	diffContext = 3         // lines around a change that are shown
	maxDiff     = 4_000_000 // lines times lines that are compared; more is one change
)

// edit is a line that stays, goes or comes.
type edit struct {
	mark byte // ' ', '-', '+'
	line string
}

// unified shows what differs between two texts, as diff -u does.
func unified(name, before, after string) string {
	edits := compareLines(linesOf(before), linesOf(after))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s (formatted)\n", name, name)
	oldLine, newLine := 1, 1 // of edits[at]
	at := 0
	for at < len(edits) {
		first := nextChange(edits, at)
		if first == len(edits) {
			break
		}
		from := max(at, first-diffContext)
		oldLine, newLine = oldLine+from-at, newLine+from-at // lines that stay
		to := endOfHunk(edits, first)
		olds, news := writeHunk(&b, edits[from:to], oldLine, newLine)
		oldLine, newLine, at = oldLine+olds, newLine+news, to
	}
	return b.String()
}

// linesOf keeps the line breaks.
func linesOf(text string) []string {
	all := strings.SplitAfter(text, "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

func nextChange(edits []edit, from int) int {
	for from < len(edits) && edits[from].mark == ' ' {
		from++
	}
	return from
}

// endOfHunk is where so many lines stay that the next change is another hunk.
func endOfHunk(edits []edit, change int) int {
	for {
		end := change
		for end < len(edits) && edits[end].mark != ' ' {
			end++
		}
		change = nextChange(edits, end)
		if change == len(edits) || change-end > 2*diffContext {
			return min(end+diffContext, len(edits))
		}
	}
}

func writeHunk(b *strings.Builder, hunk []edit, oldLine, newLine int) (olds, news int) {
	for _, e := range hunk {
		if e.mark != '+' {
			olds++
		}
		if e.mark != '-' {
			news++
		}
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", oldLine, olds, newLine, news)
	for _, e := range hunk {
		b.WriteByte(e.mark)
		b.WriteString(e.line)
		if !strings.HasSuffix(e.line, "\n") {
			b.WriteString("\n\\ No newline at end of file\n")
		}
	}
	return olds, news
}

// compareLines finds the longest list of lines that stay.
func compareLines(before, after []string) []edit {
	start := 0
	for start < min(len(before), len(after)) && before[start] == after[start] {
		start++
	}
	end := 0
	for end < min(len(before), len(after))-start && before[len(before)-1-end] == after[len(after)-1-end] {
		end++
	}
	edits := marked(' ', before[:start])
	edits = append(edits, compareRest(before[start:len(before)-end], after[start:len(after)-end])...)
	return append(edits, marked(' ', before[len(before)-end:])...)
}

func compareRest(before, after []string) []edit {
	if len(before)*len(after) > maxDiff {
		return append(marked('-', before), marked('+', after)...)
	}
	// longest[i][j]: how many lines of before[i:] and after[j:] can stay
	longest := make([][]int, len(before)+1)
	longest[len(before)] = make([]int, len(after)+1)
	for i := len(before) - 1; i >= 0; i-- {
		longest[i] = make([]int, len(after)+1)
		for j := len(after) - 1; j >= 0; j-- {
			longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			if before[i] == after[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	var edits []edit
	i, j := 0, 0
	for i < len(before) && j < len(after) {
		switch {
		case before[i] == after[j]:
			edits = append(edits, edit{' ', before[i]})
			i, j = i+1, j+1
		case longest[i+1][j] >= longest[i][j+1]:
			edits = append(edits, edit{'-', before[i]})
			i++
		default:
			edits = append(edits, edit{'+', after[j]})
			j++
		}
	}
	return append(append(edits, marked('-', before[i:])...), marked('+', after[j:])...)
}

func marked(mark byte, lines []string) []edit {
	edits := make([]edit, len(lines))
	for i, line := range lines {
		edits[i] = edit{mark, line}
	}
	return edits
}
