package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

const alice = "alice@a.example"

// underWay authorises a message of alice's and commits its reservation.
func underWay(t *testing.T, b *book, now time.Time, key byte) plugin.Record {
	t.Helper()
	r := plugin.Request{Key: message.ID{key}, Payer: alice, Units: 1, HoldUntil: now.Add(time.Hour)}
	a, err := b.authorize(now, tariff{price, "EUR"}, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.tables.Commit(a.Changes).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return plugin.Record{Key: r.Key, Charged: true, Payer: alice, Units: 1, Received: now, Settled: now, Reserved: a.Reserved}
}

// settleRecord settles a record, commits what comes of it and returns its CDR.
func settleRecord(t *testing.T, b *book, now time.Time, r plugin.Record) *cdr {
	t.Helper()
	changes, err := b.settle(t.Context(), now, []plugin.Record{r})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.tables.Commit(changes).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := b.tables.Scan(t.Context(), tableCDRs, r.Key[:], after(r.Key[:]), 1)
	if err != nil || len(rows) != 1 {
		t.Fatalf("there is no CDR: %v", err)
	}
	written, err := readCDR(rows[0])
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func TestSuspendedAccountPaysForNothingNew(t *testing.T) {
	now := time.Now()
	b := openTestBook(t, plugintest.NewTables(), now)
	addTo(t, b, entry{AOR: alice, Password: "x", Balance: "1"})
	before := underWay(t, b, now, 1)
	if _, err := b.suspend(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	r := plugin.Request{Key: message.ID{2}, Payer: alice, Units: 1, HoldUntil: now.Add(time.Hour)}
	for _, price := range []plugin.Money{price, 0} {
		_, err := b.authorize(now, tariff{price, "EUR"}, r)
		if f := message.AsFailure(err); err == nil || f.Reason != message.Forbidden || f.Temporary {
			t.Errorf("a message for %s: got %v, want it forbidden", price, err)
		}
	}
	if c := settleRecord(t, b, now, before); c.Unpaid || c.Late {
		t.Errorf("what was accepted before: %+v, want it paid", c)
	}
	if _, err := b.suspend(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	underWay(t, b, now, 3)
}

func TestDeletedAccountLeavesItsMessagesUnpaid(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ again, restart bool }{{}, {again: true}, {restart: true}, {again: true, restart: true}} {
		t.Run(fmt.Sprintf("again=%t,restart=%t", c.again, c.restart), func(t *testing.T) {
			tables := plugintest.NewTables()
			b := openTestBook(t, tables, now)
			addTo(t, b, entry{AOR: alice, Password: "x", Balance: "1", Identities: []string{"+1555"}})
			record := underWay(t, b, now, 1)
			if _, err := b.delete(t.Context(), alice, false); err == nil || !strings.Contains(err.Error(), "1 open reservations") {
				t.Fatalf("deleted with a message under way: %v", err)
			}
			last, err := b.delete(t.Context(), alice, true)
			if err != nil || last.Balance != plugin.Unit || last.Reserved != price {
				t.Fatalf("deleted: %+v, %v", last, err)
			}
			if b.find(message.Address{User: "+1555"}) != nil || b.findSystemID("alice") != nil {
				t.Error("the names of the account aren't free")
			}
			if c.again {
				addTo(t, b, entry{AOR: alice, Password: "y", Balance: "2", Identities: []string{"+1555"}})
			}
			if c.restart {
				b = openTestBook(t, tables, now)
			}
			if written := settleRecord(t, b, now, record); !written.Unpaid || written.Amount != price {
				t.Errorf("got the CDR %+v, want it unpaid", written)
			}
			if a := b.payer(alice); c.again && (a.balance() != 2*plugin.Unit || a.held != 0 || a.open != 0) {
				t.Errorf("the new account has %s with %s held, want 2.00 and nothing", a.balance(), a.held)
			}
			if len(b.holds) > 0 {
				t.Errorf("%d reservations are left", len(b.holds))
			}
			for _, table := range []string{tableSpent, tableHolds} {
				if rows, err := tables.Scan(t.Context(), table, nil, nil, 10); err != nil || len(rows) > 0 {
					t.Errorf("table %s has %v, %v", table, rows, err)
				}
			}
			openTestBook(t, tables, now)
		})
	}
}

// What was paid before the deletion and is settled again stays paid.
func TestRepeatedSettlementStaysPaid(t *testing.T) {
	now := time.Now()
	b := openTestBook(t, plugintest.NewTables(), now)
	addTo(t, b, entry{AOR: alice, Password: "x", Balance: "1"})
	record := underWay(t, b, now, 1)
	if _, err := b.settle(t.Context(), now, []plugin.Record{record}); err != nil { // never committed
		t.Fatal(err)
	}
	if _, err := b.delete(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	if c := settleRecord(t, b, now, record); c.Unpaid {
		t.Error("it says unpaid the second time")
	}
}

func TestRemovedNamesake(t *testing.T) {
	for removed := range 3 {
		b := openTestBook(t, plugintest.NewTables(), time.Now())
		domains := []string{"alice@a.example", "alice@b.example", "alice@c.example"}
		for _, aor := range domains {
			addTo(t, b, entry{AOR: aor, Password: "x"})
		}
		order := append(domains[removed:len(domains):len(domains)], domains[:removed]...)
		for i, aor := range order {
			if got := b.findSystemID("alice"); (got != nil) != (i == 2) || got != nil && got.id != aor {
				t.Errorf("with %v left: found %v", order[i:], got)
			}
			if _, err := b.delete(t.Context(), aor, false); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.users) > 0 || len(b.names) > 0 || b.meters.accounts.Load() != 0 {
			t.Errorf("%d users and %d names are left", len(b.users), len(b.names))
		}
	}
}

// shakyTables do something else than succeed at the k-th commit: it is lost, or
// nobody learns that it is on disk. With dead, all later ones are lost.
type shakyTables struct {
	*plugintest.Tables
	left   int
	landed bool
	dead   bool
}

// failed is the commit of a node that stopped being the active one.
type failed struct{}

func (failed) Wait(context.Context) error { return plugin.ErrFenced }

func (s *shakyTables) Commit(changes []plugin.Change) plugin.Commitment {
	s.left--
	if s.left >= 0 || s.left < -1 && !s.dead {
		return s.Tables.Commit(changes)
	}
	if s.left == -1 && s.landed {
		s.Tables.Commit(changes)
	}
	return failed{}
}

// eachCrash tries a change on disks that fail at each of its commits in each
// way, and then on one that doesn't. It returns how many commits that takes.
func eachCrash(t *testing.T, prepare func() *plugintest.Tables, try func(t *testing.T, disk *plugintest.Tables, n *node)) (commits int) {
	for _, way := range []shakyTables{{}, {landed: true}, {dead: true}, {landed: true, dead: true}} {
		for commits = 0; ; commits++ {
			disk := prepare()
			shaky := way
			shaky.Tables, shaky.left = disk, commits
			name := fmt.Sprintf("landed=%t,dead=%t,commit=%d", way.landed, way.dead, commits+1)
			if !t.Run(name, func(t *testing.T) { try(t, disk, openNode(t, &shaky)) }) {
				return commits
			}
			if shaky.left >= 0 {
				break
			}
		}
	}
	return commits
}

// Whatever fails when an account is deleted: afterwards it is there with all its
// money, or gone, and whoever was told that it is gone finds it gone.
func TestDeleteIsNeverHalfDone(t *testing.T) {
	now := time.Now()
	prepare := func() *plugintest.Tables {
		tables := plugintest.NewTables()
		b := openTestBook(t, tables, now)
		addTo(t, b, entry{AOR: alice, Password: "x", Balance: "1"})
		settleRecord(t, b, now, underWay(t, b, now, 1))
		underWay(t, b, now, 2)
		return tables
	}
	eachCrash(t, prepare, func(t *testing.T, disk *plugintest.Tables, n *node) {
		reply := n.do(t.Context(), "DELETE", "/v1/accounts/"+alice+"?force=true", "")
		if rows, _ := disk.Scan(t.Context(), tableSpent, nil, nil, 1); reply.Code == http.StatusOK && len(rows) > 0 {
			t.Error("what it spent was left behind")
		}
		a, exists := openNode(t, disk).list(t)[alice]
		switch {
		case reply.Code == http.StatusOK && exists:
			t.Error("it was deleted, and is back")
		case reply.Code != http.StatusOK && reply.Code != http.StatusServiceUnavailable:
			t.Errorf("got %d %s", reply.Code, reply.Body)
		case exists && (a.Balance != plugin.Unit-price || a.Reserved != price):
			t.Errorf("it was kept with %s and %s reserved", a.Balance, a.Reserved)
		}
	})
}

// Whatever fails: repeated under one key until it succeeds, on the same node or
// on the next one, a credit is given once.
func TestKeyedCreditIsGivenOnce(t *testing.T) {
	prepare := func() *plugintest.Tables {
		tables := plugintest.NewTables()
		addTo(t, openTestBook(t, tables, time.Now()), entry{AOR: alice, Password: "x"})
		return tables
	}
	give := func(n *node) *httptest.ResponseRecorder {
		return n.do(t.Context(), "POST", "/v1/accounts/"+alice+"/credit", `{"amount":"1","key":"k"}`)
	}
	eachCrash(t, prepare, func(t *testing.T, disk *plugintest.Tables, n *node) {
		give(n)
		next := openNode(t, disk)
		if reply := give(next); reply.Code != http.StatusOK {
			t.Errorf("got %d %s", reply.Code, reply.Body)
		}
		if a := next.list(t)[alice]; a.Balance != plugin.Unit {
			t.Errorf("the balance is %s, want 1.00", a.Balance)
		}
	})
}

func TestKeyIsForgottenInTheEnd(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	tables := plugintest.NewTables()
	b := openTestBook(t, tables, now)
	addTo(t, b, entry{AOR: alice, Password: "x"})
	give := func(now time.Time, want bool) {
		t.Helper()
		_, repeated, err := b.credit(t.Context(), now, credit{account: alice, amount: 1, key: "k"})
		if err != nil || repeated != want {
			t.Errorf("repeated=%t, want %t; %v", repeated, want, err)
		}
	}
	give(now, false)
	give(now.Add(creditMemory-1), true)
	if err := b.expireCredits(t.Context(), now.Add(creditMemory-1)); err != nil {
		t.Fatal(err)
	}
	b = openTestBook(t, tables, now)
	give(now, true)
	later := now.Add(creditMemory + time.Second)
	if err := b.expireCredits(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if rows, _ := tables.Scan(t.Context(), tableCredits, nil, nil, 1); len(rows) > 0 {
		t.Error("the key is still on disk")
	}
	give(later, false)
}

func TestIdempotencyKeyInTheHeader(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: alice, Password: "x"})
	for _, c := range []struct {
		header, body string
		status       int
		want         string
	}{
		{"k", `{"amount":"1"}`, 200, `"repeated":false`},
		{"k", `{"amount":"1"}`, 200, `"repeated":true`},
		{"", `{"amount":"1","key":"k"}`, 200, `"repeated":true`},
		{"k", `{"amount":"1","key":"k"}`, 200, `"repeated":true`},
		{"k", `{"amount":"1","key":"other"}`, 400, `key: expected the same as in the header`},
	} {
		request := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/accounts/"+alice+"/credit", strings.NewReader(c.body))
		request.Header.Set("Idempotency-Key", c.header)
		reply := httptest.NewRecorder()
		n.mux.ServeHTTP(reply, request)
		if reply.Code != c.status || !strings.Contains(reply.Body.String(), c.want) {
			t.Errorf("header %q, body %s: got %d %s", c.header, c.body, reply.Code, reply.Body)
		}
	}
}

// impatientTables end a context at the k-th commit, as a client does who goes.
type impatientTables struct {
	*plugintest.Tables
	left int
	end  context.CancelFunc
}

type cancelled struct{ plugin.Commitment }

func (c cancelled) Wait(ctx context.Context) error {
	return errors.Join(ctx.Err(), c.Commitment.Wait(ctx))
}

func (i *impatientTables) Commit(changes []plugin.Change) plugin.Commitment {
	if i.left--; i.left == 0 {
		i.end()
	}
	return cancelled{i.Tables.Commit(changes)}
}

// An import whose client has gone leaves nothing behind, without a restart.
func TestAbandonedImportIsCleanedUp(t *testing.T) {
	disk := plugintest.NewTables()
	ctx, cancel := context.WithCancel(t.Context())
	n := openNode(t, &impatientTables{disk, 2, cancel})
	var body strings.Builder
	body.WriteString("aor,password,balance\n")
	for i := range 20_000 {
		fmt.Fprintf(&body, "%d@many.example,secret,10.00\n", i)
	}
	reply := n.do(ctx, "POST", "/v1/accounts/import", body.String())
	if reply.Code != http.StatusServiceUnavailable || !strings.Contains(reply.Body.String(), "nothing was imported") {
		t.Errorf("got %d %s", reply.Code, reply.Body)
	}
	if rows, err := disk.Scan(t.Context(), tableAccounts, nil, nil, 1); err != nil || len(rows) > 0 {
		t.Errorf("rows were left behind: %v", err)
	}
	n.add(t, entry{AOR: "1@many.example", Password: "x"})
}

// Rows that were written before accounts had serials are read as they were.
func TestRowsOfVersion1(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	tables := plugintest.NewTables()
	account := append([]byte{oldRowVersion, 0}, appendAmount(nil, 5*plugin.Unit)...)
	account = append(append(account, make([]byte, 2*(16+32))...), 0)
	hold := append(appendAmount(appendText([]byte{oldRowVersion}, alice), price), appendTime(nil, now.Add(time.Hour))...)
	key := message.ID{1}
	tables.Commit([]plugin.Change{
		{Table: tableAccounts, Key: []byte(alice), Value: account},
		{Table: tableSpent, Key: []byte(alice), Value: appendAmount([]byte{oldRowVersion}, plugin.Unit)},
		{Table: tableHolds, Key: key[:], Value: hold},
	})
	b := openTestBook(t, tables, now)
	a := b.payer(alice)
	if a == nil || a.balance() != 4*plugin.Unit || a.held != price || !a.view().Created.IsZero() {
		t.Fatalf("got %+v", a)
	}
	reserved := appendText(appendAmount([]byte{oldRowVersion}, price), "EUR")
	c := settleRecord(t, b, now, plugin.Record{Key: key, Charged: true, Payer: alice, Units: 1, Reserved: reserved})
	if c.Late || c.Unpaid || a.balance() != 4*plugin.Unit-price {
		t.Errorf("got the CDR %+v and a balance of %s", c, a.balance())
	}
	if again := openTestBook(t, tables, now).payer(alice); again.balance() != a.balance() {
		t.Errorf("after a restart the balance is %s, want %s", again.balance(), a.balance())
	}
}
