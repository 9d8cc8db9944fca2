package sip

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

var update = flag.Bool("update", false, "write the table of docs/sip.md anew")

// manual is where operators read what clients are told.
const manual = "../../docs/sip.md"

// TestManual compares the table of the manual with what the code does, and with
// -update writes it.
func TestManual(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "-run TestManual -update -->\n", "<!-- end of answers -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatal("the manual has no place for the table of answers")
	}
	is := before + begin + answersTable() + end + after
	if *update {
		if err := os.WriteFile(manual, []byte(is), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != is {
		t.Error("the table of docs/sip.md isn't what the code does: go test ./transports/sip -run TestManual -update writes it")
	}
}

func answersTable() string {
	reasons := map[message.Reason]bool{}
	for _, row := range finals {
		reasons[row.reason] = true
	}
	var table strings.Builder
	table.WriteString("| reason | for good | for now |\n|---|---|---|\n")
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		good := finalFor(&message.Failure{Reason: reason})
		now := finalFor(&message.Failure{Reason: reason, Temporary: true, RetryAfter: time.Second})
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", reason, asAnswer(good), asAnswer(now))
	}
	return table.String()
}

func asAnswer(r wire.Reply) string { return strconv.Itoa(r.Status) + " " + wire.Phrase(r.Status) }
