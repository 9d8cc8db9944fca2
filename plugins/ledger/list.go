package ledger

import (
	"context"
	"fmt"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// listed is an account as the admin API shows it.
type listed struct {
	AOR        string            `json:"aor"`
	Balance    plugin.Money      `json:"balance"`
	Held       plugin.Money      `json:"held"`
	Identities []message.Address `json:"identities"` // besides the AOR
}

// page is one page of accounts. Next is what to ask for with after to get the
// following one; empty: there is none.
type page struct {
	Accounts []listed `json:"accounts"`
	Next     string   `json:"next,omitempty"`
}

// list returns a page of accounts. Their names come from the disk, which has
// them in order; rows that memory doesn't know belong to an import that isn't
// complete.
func (b *book) list(ctx context.Context, last string, limit int) (page, error) {
	found := page{Accounts: []listed{}}
	var from []byte
	if last != "" {
		from = after([]byte(last))
	}
	for {
		wanted := limit - len(found.Accounts)
		rows, err := b.tables.Scan(ctx, tableAccounts, from, nil, wanted)
		if err != nil {
			return page{}, fmt.Errorf("read table %s: %w", tableAccounts, err)
		}
		found.Accounts = b.show(found.Accounts, rows)
		if len(rows) < wanted {
			return found, nil
		}
		last := rows[len(rows)-1].Key
		if len(found.Accounts) == limit {
			found.Next = string(last)
			return found, nil
		}
		from = after(last)
	}
}

// show appends the accounts that rows name and that are known.
func (b *book) show(shown []listed, rows []plugin.Change) []listed {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, row := range rows {
		if a := b.payer(string(row.Key)); a != nil {
			shown = append(shown, a.listed())
		}
	}
	return shown
}

// showOne shows an account as it is now.
func (b *book) showOne(a *account) listed {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return a.listed()
}

// listed is called under the book's lock.
func (a *account) listed() listed {
	return listed{AOR: a.id, Balance: a.balance(), Held: a.held, Identities: a.identities[1:]}
}
