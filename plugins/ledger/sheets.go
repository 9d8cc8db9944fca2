package ledger

import (
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// field is a column together with how a row's value for it is found.
type field[R any] struct {
	plugin.Column
	value func(R) any
}

// sheet shows rows that read understands in the columns of fields.
func sheet[R any](table, doc string, read func(plugin.Change) (R, error), fields ...field[R]) plugin.Sheet {
	s := plugin.Sheet{Table: table, Name: table, Doc: doc}
	for _, f := range fields {
		s.Columns = append(s.Columns, f.Column)
	}
	s.Read = func(c plugin.Change) ([]any, error) {
		row, err := read(c)
		if err != nil {
			return nil, err
		}
		values := make([]any, len(fields))
		for i, f := range fields {
			values[i] = f.value(row)
		}
		return values, nil
	}
	return s
}

// sheets say how the tables read: what a billing clerk asks for has a name.
func sheets() []plugin.Sheet {
	return []plugin.Sheet{
		accountsSheet(), spentSheet(), cdrsSheet(),
		{Table: tableHolds}, {Table: tableImports}, {Table: tableCredits},
	}
}

// accountsSheet has no secrets: they are worth as much as passwords.
func accountsSheet() plugin.Sheet {
	return sheet(tableAccounts, "an account; the balance is what was credited less what was spent; those of an import are there a moment before it is complete", readAccount,
		field[*account]{column("account", plugin.ColumnText, "its address"), func(a *account) any { return text(a.id) }},
		field[*account]{column("credited", plugin.ColumnMoney, "all that was ever credited, less what was taken back"), func(a *account) any { return a.credited }},
		field[*account]{column("suspended", plugin.ColumnFlag, "it can't send, register or pay until it is resumed"), func(a *account) any { return a.suspended.Load() }},
		field[*account]{column("created", plugin.ColumnMoment, "when it was added; NULL: before that was kept"), func(a *account) any { return moment(a.created) }},
		field[*account]{column("identities", plugin.ColumnText, "further addresses and telephone numbers, separated by spaces"), func(a *account) any { return text(names(a.identities[1:])) }},
	)
}

// spending is how much an account has spent.
type spending struct {
	account string
	spent   plugin.Money
}

func spentSheet() plugin.Sheet {
	return sheet(tableSpent, "what an account has spent; one that never paid for a message has no row", readSpending,
		field[spending]{column("account", plugin.ColumnText, "its address"), func(s spending) any { return text(s.account) }},
		field[spending]{column("spent", plugin.ColumnMoney, "all that it ever paid"), func(s spending) any { return s.spent }},
	)
}

func readSpending(c plugin.Change) (spending, error) {
	spent, _, err := readSpent(c)
	return spending{account: string(c.Key), spent: spent}, err
}

func cdrsSheet() plugin.Sheet {
	return sheet(tableCDRs, "a CDR: a message that was paid for", readCDR,
		field[*cdr]{column("id", plugin.ColumnID, "the message"), func(c *cdr) any { return c.ID }},
		field[*cdr]{indexed(column("payer", plugin.ColumnText, "the account that paid")), func(c *cdr) any { return text(c.Payer) }},
		field[*cdr]{column("sender", plugin.ColumnText, "who sent the message"), func(c *cdr) any { return text(c.From) }},
		field[*cdr]{column("recipient", plugin.ColumnText, "to whom it was sent"), func(c *cdr) any { return text(c.Recipient) }},
		field[*cdr]{column("destination", plugin.ColumnText, "what the policy charged it as, if it says so"), func(c *cdr) any { return text(c.Destination) }},
		field[*cdr]{column("units", plugin.ColumnNumber, "how many events it counts as"), func(c *cdr) any { return int64(c.Units) }},
		field[*cdr]{column("amount", plugin.ColumnMoney, "what was paid, for all units"), func(c *cdr) any { return c.Amount }},
		field[*cdr]{column("currency", plugin.ColumnText, "of the amount, for example EUR"), func(c *cdr) any { return text(c.Currency) }},
		field[*cdr]{column("service", plugin.ColumnText, "the policy that decided on it"), func(c *cdr) any { return text(c.Service) }},
		field[*cdr]{column("transport", plugin.ColumnText, "through which it was delivered"), func(c *cdr) any { return text(c.Transport) }},
		field[*cdr]{column("received", plugin.ColumnMoment, "when it came in"), func(c *cdr) any { return c.Received.time() }},
		field[*cdr]{indexed(column("settled", plugin.ColumnMoment, "when that happened which is charged for: invoices go by this")), func(c *cdr) any { return c.Settled.time() }},
		field[*cdr]{column("late", plugin.ColumnFlag, "paid after its reservation had lapsed"), func(c *cdr) any { return c.Late }},
		field[*cdr]{column("unpaid", plugin.ColumnFlag, "nobody paid: the payer's account had been deleted"), func(c *cdr) any { return c.Unpaid }},
	)
}

func column(name string, kind plugin.ColumnType, doc string) plugin.Column {
	return plugin.Column{Name: name, Type: kind, Doc: doc}
}

func indexed(c plugin.Column) plugin.Column {
	c.Indexed = true
	return c
}

// moment is nil for a time that isn't known.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

func names(addresses []message.Address) string {
	all := make([]string, 0, len(addresses))
	for _, a := range addresses {
		all = append(all, clean(a.String()))
	}
	return strings.Join(all, " ")
}

// text is a text as a column may hold it; an empty one is no value.
func text(s string) any {
	if s == "" {
		return nil
	}
	return clean(s)
}

// clean makes a text of what may be any octets: peers and policies choose them.
func clean(s string) string {
	const unreadable = "\uFFFD"
	return strings.ReplaceAll(strings.ToValidUTF8(s, unreadable), "\x00", unreadable)
}
