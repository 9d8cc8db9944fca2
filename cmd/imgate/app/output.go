package app

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value string
	known []string
}

var _ pflag.Value = (*choice)(nil)

func (c *choice) String() string { return c.value }

// Type implements pflag.Value: help shows it, and shells complete what it lists.
func (c *choice) Type() string { return strings.Join(c.known, "|") }

// Set implements pflag.Value.
func (c *choice) Set(text string) error {
	if !slices.Contains(c.known, text) {
		return fmt.Errorf("%s", expectedOneOf(text, c.known))
	}
	c.value = text
	return nil
}

// addChoice adds a flag that takes one of the known words.
func addChoice(command *cobra.Command, name, value, usage string, known ...string) *choice {
	c := &choice{value, known}
	command.Flags().Var(c, name, usage)
	return c
}

// The forms in which commands print.
const (
	asTable = "table"
	asJSON  = "json"
	asText  = "text"
)

// addOutput adds the flag --output.
func addOutput(command *cobra.Command) *choice {
	return addChoice(command, "output", asTable, "how to print, json with one object a line", asTable, asJSON)
}

// printJSON writes a value on one line. JSON lets control characters of C1 and
// the like through, on which a terminal acts; here they are \uXXXX, which is the
// same to whoever reads JSON.
func printJSON(out io.Writer, value any) error {
	document, err := json.Marshal(value)
	if err != nil {
		return err
	}
	line := make([]byte, 0, len(document)+1)
	for _, r := range string(document) {
		switch {
		case strconv.IsPrint(r):
			line = utf8.AppendRune(line, r)
		case r < 0x10000:
			line = fmt.Appendf(line, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			line = fmt.Appendf(line, `\u%04x\u%04x`, high, low)
		}
	}
	_, err = out.Write(append(line, '\n'))
	return err
}

// newTable aligns columns that are separated by tabs. It holds what is written
// until it is flushed.
func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// row writes one line of a table. What came from a peer can't move the cursor
// or break the table.
func row(table io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	fmt.Fprintln(table, strings.Join(cells, "\t"))
}

// printable replaces what a terminal would act upon, and "" by "-".
func printable(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

// inOneLine joins the lines of a text, such as an error of a library's.
func inOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// shownTime is a moment in UTC, as in CDRs; "" if there is none.
func shownTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
