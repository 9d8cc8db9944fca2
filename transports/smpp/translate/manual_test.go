package translate

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// manual is where operators read what statuses mean.
const manual = "../../../docs/smpp.md"

// TestManual compares the tables of the manual with what the code does, and with
// -update writes them.
func TestManual(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	was := string(text)
	is := putTable(t, putTable(t, was, "reasons", reasonsTable()), "statuses", statusesTable())
	if *update {
		if err := os.WriteFile(manual, []byte(is), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if was != is {
		t.Error("the tables of docs/smpp.md aren't what the code does: go test ./transports/smpp/translate -run TestManual -update writes them")
	}
}

// putTable puts a table before the line that ends it.
func putTable(t *testing.T, text, name, table string) string {
	t.Helper()
	const begin = "-run TestManual -update -->\n"
	end := "<!-- end of " + name + " -->"
	before, after, found := strings.Cut(text, end)
	i := strings.LastIndex(before, begin)
	if !found || i < 0 {
		t.Fatalf("the manual has no place for the table of %s", name)
	}
	return before[:i+len(begin)] + table + end + after
}

func reasonsTable() string {
	var table strings.Builder
	table.WriteString("| reason | for good | for now |\n|---|---|---|\n")
	for _, reason := range slices.Sorted(maps.Keys(statuses)) {
		final := StatusOf(&message.Failure{Reason: reason})
		temporary := StatusOf(&message.Failure{Reason: reason, Temporary: true})
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", reason, named(final), named(temporary))
	}
	return table.String()
}

func statusesTable() string {
	var table strings.Builder
	table.WriteString("| status | reason | tried again |\n|---|---|---|\n")
	for _, status := range slices.Sorted(maps.Keys(failures)) {
		failure, again := (Errors{}).FailureOf(status), "no"
		if failure.Temporary {
			again = "yes"
		}
		if failure.Reason == message.Overloaded {
			again = "yes, and slower"
		}
		fmt.Fprintf(&table, "| %s | `%s` | %s |\n", named(status), failure.Reason, again)
	}
	return table.String()
}

func named(s pdu.Status) string { return fmt.Sprintf("0x%02x %s", uint32(s), wire.StatusName(s)) }
