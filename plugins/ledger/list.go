package ledger

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// accountView is an account as the admin API shows it: all but its secret.
type accountView struct {
	AOR        string            `json:"aor"`
	Balance    plugin.Money      `json:"balance"`
	Reserved   plugin.Money      `json:"reserved"`   // by messages under way
	Identities []message.Address `json:"identities"` // besides the AOR
	Attributes map[string]string `json:"attributes"`
	Suspended  bool              `json:"suspended"`
	Created    time.Time         `json:"created,omitzero"` // absent: not known
}

// view is called under the book's lock.
func (a *account) view() accountView {
	v := accountView{
		AOR: a.id, Balance: a.balance(), Reserved: a.held,
		Identities: a.identities[1:], Attributes: a.attributes,
		Suspended: a.suspended.Load(), Created: a.created.UTC().Truncate(time.Second),
	}
	if v.Attributes == nil {
		v.Attributes = map[string]string{}
	}
	return v
}

// show shows an account as it is now.
func (b *book) show(a *account) accountView {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return a.view()
}

// showID shows the account with an ID.
func (b *book) showID(id string) (accountView, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	a := b.payer(id)
	if a == nil {
		return accountView{}, errNoAccount
	}
	return a.view(), nil
}

// accountPage is one page of accounts. Next is what to ask for with after to
// get the following one; empty: there is none. A page may hold fewer accounts
// than were asked for, or none, and still have a next one.
type accountPage struct {
	Accounts []accountView `json:"accounts"`
	Next     string        `json:"next"`
}

// accountQuery selects accounts. Zero values don't restrict.
type accountQuery struct {
	after        string // those behind this address
	limit        int
	prefix       string // of the address
	domain       string // of the address, in lower case
	suspended    *bool
	balanceBelow *plugin.Money
}

// filters tells whether accounts must be looked at to know if they are wanted.
func (q accountQuery) filters() bool {
	return q.domain != "" || q.suspended != nil || q.balanceBelow != nil
}

func (q accountQuery) wants(a *account) bool {
	return (q.domain == "" || a.identities[0].Host == q.domain) &&
		(q.suspended == nil || a.suspended.Load() == *q.suspended) &&
		(q.balanceBelow == nil || a.balance() < *q.balanceBelow)
}

// keys bounds what must be read.
func (q accountQuery) keys() (from, to []byte) {
	from = []byte(q.prefix)
	if q.after >= q.prefix && q.after != "" {
		from = after([]byte(q.after))
	}
	return from, prefixEnd(q.prefix)
}

// prefixEnd is the first key behind all that begin with a prefix; nil: there is
// no end.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// maxLooked bounds how many accounts are looked at for one page.
const maxLooked = 100_000

// list returns a page of accounts. Their names come from the disk, which has
// them in order; rows that memory doesn't know belong to an import that isn't
// complete.
func (b *book) list(ctx context.Context, q accountQuery) (accountPage, error) {
	page := accountPage{Accounts: []accountView{}}
	from, to := q.keys()
	if to != nil && bytes.Compare(from, to) >= 0 {
		return page, nil
	}
	for looked := 0; ; {
		n := pageSize
		if !q.filters() {
			n = q.limit - len(page.Accounts)
		}
		rows, err := b.tables.Scan(ctx, tableAccounts, from, to, n)
		if err != nil {
			return page, fmt.Errorf("read table %s: %w", tableAccounts, err)
		}
		taken := b.take(&page, q, rows)
		if taken == len(rows) && len(rows) < n {
			return page, nil
		}
		last, full := rows[taken-1].Key, len(page.Accounts) == q.limit
		if looked += taken; full || looked >= maxLooked {
			page.Next = string(last)
			return page, nil
		}
		from = after(last)
	}
}

// take adds the accounts that rows name and a query wants to a page until it is
// full. It returns how many rows it has looked at.
func (b *book) take(page *accountPage, q accountQuery, rows []plugin.Change) int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for i, row := range rows {
		a := b.payer(string(row.Key))
		if a == nil || !q.wants(a) {
			continue
		}
		page.Accounts = append(page.Accounts, a.view())
		if len(page.Accounts) == q.limit {
			return i + 1
		}
	}
	return len(rows)
}
