// Command verdict reads what `go test -json` says and prints it as go test
// does: a line for each package, and everything that failed. In the end it names
// and counts what was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is a line of test2json's; see go doc test2json.
type event struct {
	Action string
	who
	Output string
}

// who is a test, or a package where Test is empty.
type who struct{ Package, Test string }

// verdict is what was read so far.
type verdict struct {
	out     io.Writer
	said    map[who]*strings.Builder // of what hasn't ended yet
	skipped []string
	failed  bool
}

func main() {
	v := &verdict{out: os.Stdout, said: map[who]*strings.Builder{}}
	if err := v.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "verdict:", err)
		v.failed = true
	}
	if v.failed {
		os.Exit(1)
	}
}

// read takes all events, and says in the end what was skipped.
func (v *verdict) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Fprintf(v.out, "%s", line) // go's own words
			continue
		}
		v.take(e)
	}
	fmt.Fprintf(v.out, "%d tests skipped\n", len(v.skipped))
	for _, s := range v.skipped {
		fmt.Fprintln(v.out, "SKIP", s)
	}
	return nil
}

func (v *verdict) take(e event) {
	switch e.Action {
	case "output":
		if v.said[e.who] == nil {
			v.said[e.who] = &strings.Builder{}
		}
		v.said[e.who].WriteString(e.Output)
		return
	case "build-output":
		fmt.Fprint(v.out, e.Output)
		return
	case "build-fail":
		v.failed = true
		return
	case "pass", "skip", "fail":
	default:
		return
	}
	text := ""
	if said := v.said[e.who]; said != nil {
		text = said.String()
	}
	delete(v.said, e.who)
	switch {
	case e.Action == "fail":
		v.failed = true
		if e.Test == "" {
			v.unfinished(e.Package)
		}
		fmt.Fprint(v.out, text)
	case e.Test == "":
		fmt.Fprint(v.out, summary(text))
	case e.Action == "skip":
		v.skipped = append(v.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(text)))
	}
}

// unfinished prints what tests said that were running when their package ended.
func (v *verdict) unfinished(of string) {
	for w, text := range v.said {
		if w.Package == of && w.Test != "" {
			fmt.Fprint(v.out, text.String())
		}
	}
}

// summary is the line that go test prints of a package.
func summary(text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
			return line
		}
	}
	return ""
}

// reason is what a test said when it was skipped.
func reason(text string) string {
	var words []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}
