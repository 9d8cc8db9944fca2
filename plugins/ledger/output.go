package ledger

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// output is the flag --output: how a command prints.
type output struct{ *plugin.Choice }

// newOutput declares the flag; the first format is the default.
func newOutput(flags *flag.FlagSet, formats ...string) *output {
	return &output{plugin.NewChoice(flags, "output", "print as", formats...)}
}

func tableOrJSON(flags *flag.FlagSet) *output { return newOutput(flags, "table", "json") }

func (o *output) json() bool { return o.Value == "json" }

// print prints one document, or calls what prints it for people.
func (o *output) print(out io.Writer, document any, forPeople func() error) error {
	if !o.json() {
		return forPeople()
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// printAccount prints one account, a property a line.
func printAccount(out io.Writer, a accountView) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"address", a.AOR},
		{"state", state(a)},
		{"balance", a.Balance.String()},
		{"reserved", a.Reserved.String()},
		{"identities", joined(a.Identities)},
		{"attributes", attributeText(a.Attributes)},
		{"created", createdText(a.Created)},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	return table.Flush()
}

// accountTable prints accounts in columns, aligned page by page, so that a long
// list needs no memory.
type accountTable struct{ out *tabwriter.Writer }

func newAccountTable(out io.Writer) accountTable {
	t := accountTable{tabwriter.NewWriter(out, 12, 0, 2, ' ', 0)}
	fmt.Fprintln(t.out, "ADDRESS\tBALANCE\tRESERVED\tSTATE\tIDENTITIES")
	return t
}

func (t accountTable) page(accounts []accountView) error {
	for _, a := range accounts {
		fmt.Fprintf(t.out, "%s\t%s\t%s\t%s\t%s\n", a.AOR, a.Balance, a.Reserved, state(a), joined(a.Identities))
	}
	return t.out.Flush()
}

func (t accountTable) end() error { return t.out.Flush() }

// accountArray prints accounts as a JSON array.
type accountArray struct{ out *jsonArray }

func (a accountArray) page(accounts []accountView) error {
	for _, account := range accounts {
		if err := a.out.write(account); err != nil {
			return err
		}
	}
	return nil
}

func (a accountArray) end() error { return a.out.end() }

// nothing fills a cell of a table that would be empty.
const nothing = "-"

func state(a accountView) string {
	if a.Suspended {
		return "suspended"
	}
	return "active"
}

func joined(identities []message.Address) string {
	var all []string
	for _, identity := range identities {
		all = append(all, identity.String())
	}
	return cmp.Or(strings.Join(all, " "), nothing)
}

func attributeText(attributes map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		all = append(all, name+"="+attributes[name])
	}
	return cmp.Or(strings.Join(all, "; "), nothing)
}

func createdText(created time.Time) string {
	if created.IsZero() {
		return nothing
	}
	return created.Format(time.RFC3339)
}
