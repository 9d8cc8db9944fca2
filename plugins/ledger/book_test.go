package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

// settle settles records; what comes of it is not committed.
func (n *node) settle(t testing.TB, records ...plugin.Record) {
	t.Helper()
	changes, err := n.charging.Settle(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.book.tables.Commit(changes).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func openTestBook(t testing.TB, tables plugin.Tables, now time.Time) *book {
	t.Helper()
	b, err := openBook(t.Context(), tables, slog.New(slog.DiscardHandler), now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addTo(t testing.TB, b *book, e entry) {
	t.Helper()
	a, err := e.account()
	if err == nil {
		err = b.add(t.Context(), time.Now(), a)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFullAddressAsDigestUsername(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "alice@a.example", Password: "secret"})
	n.add(t, entry{AOR: "alice@b.example", Password: "secret"})
	for _, c := range []struct {
		username, realm string
		want            string // account; empty: refused
	}{
		{"alice", "a.example", "alice@a.example"},
		{"alice@a.example", "a.example", "alice@a.example"},
		{"alice@b.example", "b.example", "alice@b.example"},
		{"alice@a.example", "b.example", ""},
		{"alice@", "a.example", ""},
		{"@a.example", "a.example", ""},
		{"", "", ""},
		{"nobody", "", ""},
	} {
		for _, algorithm := range []string{"MD5", "SHA-256"} {
			d := &plugin.Digest{Method: "REGISTER", URI: "sip:a.example", Nonce: "n", Username: c.username, Realm: c.realm, Algorithm: algorithm}
			secret := newHA1(c.username, c.realm, "secret")
			d.Response = string(response(d, secret.md5[:], md5Hex))
			if algorithm == "SHA-256" {
				d.Response = string(response(d, secret.sha256[:], sha256Hex))
			}
			account, _ := n.accounts.Verify(t.Context(), plugin.Credentials{Digest: d})
			if account.ID != c.want {
				t.Errorf("%s of %q in realm %q: got %q, want %q", algorithm, c.username, c.realm, account.ID, c.want)
			}
		}
	}
}

// TestUnknownCostsAsMuch: who doesn't exist costs as much work as a wrong
// password, so that the time that it takes doesn't tell them apart. Time itself
// is too uneven to compare; what is allocated for each hash isn't.
func TestUnknownCostsAsMuch(t *testing.T) {
	book := openTestBook(t, plugintest.NewTables(), time.Now())
	addTo(t, book, entry{AOR: "alice@a.example", Password: "secret"})
	work := func(username, algorithm string) float64 {
		d := &plugin.Digest{Method: "REGISTER", URI: "sip:a.example", Nonce: "n", Username: username, Realm: "a.example", Algorithm: algorithm,
			QOP: "auth", NC: "00000001", CNonce: "c", Response: strings.Repeat("0", 32)}
		return testing.AllocsPerRun(100, func() {
			if book.verify(plugin.Credentials{Digest: d}) != nil {
				t.Fatal("let in")
			}
		})
	}
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		for _, pair := range [][2]string{{"alice", "nobody"}, {"alice@a.example", "nobody@a.example"}} {
			if known, unknown := work(pair[0], algorithm), work(pair[1], algorithm); known != unknown || known == 0 {
				t.Errorf("%s: %v allocations for %s, %v for %s", algorithm, known, pair[0], unknown, pair[1])
			}
		}
	}
}

// The example of RFC 7616 §3.9.1, both algorithms.
func TestDigestOfRFC7616(t *testing.T) {
	for _, c := range []struct{ algorithm, response string }{
		{"MD5", "8ca523f5e9506fed4657c9700eebdbec"},
		{"SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"},
	} {
		secret := newHA1("Mufasa", "http-auth@example.org", "Circle of Life")
		d := &plugin.Digest{
			Method: "GET", Username: "Mufasa", Realm: "http-auth@example.org", URI: "/dir/index.html",
			Nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", NC: "00000001",
			CNonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", QOP: "auth",
			Algorithm: c.algorithm, Response: c.response,
		}
		if !secret.matches(d) {
			t.Errorf("%s: the example of the RFC is refused", c.algorithm)
		}
		d.QOP = "auth-int"
		if secret.matches(d) {
			t.Errorf("%s: auth-int is accepted", c.algorithm)
		}
	}
	if new(ha1).matches(&plugin.Digest{Algorithm: "none"}) || new(ha1).matches(&plugin.Digest{Algorithm: "SHA-512-256"}) {
		t.Error("an unknown algorithm is accepted")
	}
}

func TestSystemIDOfTwoIsGoodForNeither(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "alice@a.example", Password: "secret"})
	proof := plugin.Credentials{Password: &plugin.Password{SystemID: "alice", Password: "secret"}}
	if _, err := n.accounts.Verify(t.Context(), proof); err != nil {
		t.Errorf("the only alice: %v", err)
	}
	n.add(t, entry{AOR: "alice@b.example", Password: "secret"})
	if account, err := n.accounts.Verify(t.Context(), proof); err == nil {
		t.Errorf("one of two: taken for %s", account.ID)
	}
	if account, err := n.accounts.Verify(t.Context(), plugin.Credentials{}); err == nil {
		t.Errorf("no credentials: taken for %s", account.ID)
	}
}

func TestPriceIsThatOfTheAuthorization(t *testing.T) {
	now := time.Now()
	b := openTestBook(t, plugintest.NewTables(), now)
	addTo(t, b, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
	var keys message.Generator
	key := keys.New(now)
	r := plugin.Request{Key: key, Payer: "alice@a.example", Units: 2, HoldUntil: now.Add(time.Hour)}
	a, err := b.authorize(now, tariff{plugin.Unit / 10, "EUR"}, r)
	if err != nil {
		t.Fatal(err)
	}
	record := plugin.Record{Key: key, Charged: true, Payer: r.Payer, Units: 2, Reserved: a.Reserved}
	if _, err := b.settle(t.Context(), now, []plugin.Record{record}); err != nil {
		t.Fatal(err)
	}
	if balance := b.payer(r.Payer).balance(); balance != 8*plugin.Unit/10 {
		t.Errorf("the balance is %s, want 0.80", balance)
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	now := time.Now()
	b := openTestBook(t, plugintest.NewTables(), now)
	addTo(t, b, entry{AOR: "alice@a.example", Password: "x", Balance: "1", Identities: []string{"sales@a.example"}})
	addTo(t, b, entry{AOR: "poor@a.example", Password: "x"})
	b.payer("poor@a.example").spent = plugin.Unit
	for _, c := range []struct {
		name      string
		payer     string
		units     int
		price     plugin.Money
		want      message.Reason // empty: allowed
		temporary bool
	}{
		{"within funds", "alice@a.example", 1, plugin.Unit, "", false},
		{"nobody", "mallory@a.example", 1, 1, message.Forbidden, false},
		{"empty payer", "", 1, 1, message.Forbidden, false},
		{"an identity is not an account", "sales@a.example", 1, 1, message.Forbidden, false},
		{"no units", "alice@a.example", 0, 1, message.ChargingFailed, true},
		{"negative units", "alice@a.example", -5, 1, message.ChargingFailed, true},
		{"beyond counting", "alice@a.example", 3, ceiling / 2, message.InsufficientFunds, false},
		{"in debt", "poor@a.example", 1, 1, message.InsufficientFunds, false},
		{"in debt, for nothing", "poor@a.example", 1, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := plugin.Request{Key: message.ID{1}, Payer: c.payer, Units: c.units, HoldUntil: now.Add(time.Hour)}
			_, err := b.authorize(now, tariff{c.price, "EUR"}, r)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var f *message.Failure
			if !errors.As(err, &f) || f.Reason != c.want || f.Temporary != c.temporary {
				t.Errorf("got %v, want %s, temporary=%t", err, c.want, c.temporary)
			}
		})
	}
}

func TestForeignReservationIsNotCharged(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
	n.settle(t, plugin.Record{Key: message.ID{1}, Charged: true, Payer: "alice@a.example", Units: 1})
	n.settle(t, plugin.Record{Key: message.ID{2}, Charged: true, Payer: "alice@a.example", Units: 1, Reserved: []byte("of another")})
	if a := n.list(t)["alice@a.example"]; a.Balance != plugin.Unit {
		t.Errorf("the balance is %s, want 1.00", a.Balance)
	}
}

func TestSpendingStopsAtTheCeiling(t *testing.T) {
	b := openTestBook(t, plugintest.NewTables(), time.Now())
	addTo(t, b, entry{AOR: "alice@a.example", Password: "x"})
	for i := range 3 {
		record := plugin.Record{Key: message.ID{byte(i)}, Charged: true, Payer: "alice@a.example", Units: 1,
			Reserved: charge{amount: ceiling, currency: "EUR"}.reserved()}
		if _, err := b.settle(t.Context(), time.Now(), []plugin.Record{record}); err != nil {
			t.Fatal(err)
		}
	}
	if spent := b.payer("alice@a.example").spent; spent != ceiling {
		t.Errorf("spent %s, want %s", spent, ceiling)
	}
}

func TestSettleFailsWhenTheDiskCantBeAsked(t *testing.T) {
	b := openTestBook(t, brokenScan{plugintest.NewTables()}, time.Now())
	addTo(t, b, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
	records := []plugin.Record{{Key: message.ID{1}, Charged: true, Payer: "alice@a.example", Units: 1, Reserved: charge{amount: 1, currency: "EUR"}.reserved()}}
	changes, err := b.settle(t.Context(), time.Now(), records)
	if f := message.AsFailure(err); err == nil || changes != nil || !f.Temporary {
		t.Errorf("got %v, %v; want a temporary failure", changes, err)
	}
	if a := b.payer("alice@a.example"); a.balance() != plugin.Unit {
		t.Errorf("something was settled: the balance is %s", a.balance())
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	r := newRecent[int, mark]()
	for key := range 2*recentGeneration + 1 {
		r.add(key, markLate)
	}
	if _, known := r.get(0); known {
		t.Error("the oldest key is still remembered")
	}
	if m, known := r.get(2 * recentGeneration); !known || m != markLate {
		t.Errorf("the last key: mark %d, known=%t", m, known)
	}
	if n := len(r.young) + len(r.old); n > 2*recentGeneration {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestCorruptRowsAreNamed(t *testing.T) {
	for _, row := range []plugin.Change{
		{Table: tableAccounts, Key: []byte("a@a.example"), Value: []byte{9}},
		{Table: tableAccounts, Key: []byte("nobody"), Value: []byte{1}},
		{Table: tableImports, Key: []byte("x"), Value: []byte{1}},
		{Table: tableSpent, Key: []byte("a@a.example"), Value: []byte{1}},
		{Table: tableHolds, Key: []byte("x"), Value: []byte{1, 0, 0, 0}},
		{Table: tableHolds, Key: make([]byte, 16), Value: []byte{2, 0, 0, 0}},
	} {
		tables := plugintest.NewTables()
		tables.Commit([]plugin.Change{row})
		_, err := openBook(t.Context(), tables, slog.New(slog.DiscardHandler), time.Now())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("table %s, row %q", row.Table, row.Key)) {
			t.Errorf("row %q of %s: got %v", row.Value, row.Table, err)
		}
	}
}

func FuzzRows(f *testing.F) {
	a, err := entry{AOR: "a@a.example", Password: "x", Balance: "1", Identities: []string{"b@a.example", "+1555"}, Attributes: map[string]string{"plan": "gold"}}.account()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(accountRow(a).Value)
	f.Add(spentRow(a).Value)
	f.Add(holdRow(&hold{payer: a, amount: 5, until: time.Now()}).Value)
	f.Add(newCDR(&plugin.Record{Payer: "a@a.example", Units: 3, Received: time.Now()}, charge{amount: 5, currency: "EUR"}, markLate|markUnpaid).row().Value)
	f.Add(charge{amount: 5, currency: "EUR", serial: 7}.reserved())
	f.Fuzz(func(t *testing.T, value []byte) {
		row := plugin.Change{Key: []byte("a@a.example"), Value: value}
		if a, err := readAccount(row); err == nil && (a.credited < 0 || a.credited > ceiling) {
			t.Errorf("credited %d", a.credited)
		}
		if c, err := readReserved(value); err == nil && (c.amount < 0 || c.amount > ceiling) {
			t.Errorf("reserved %d", c.amount)
		}
		readSpent(row)
		readKeyedCredit(row)
		row.Key = make([]byte, 16)
		readHold(row)
		if c, err := readCDR(row); err == nil && (c.Units < 0 || c.Amount < 0) {
			t.Errorf("CDR of %d units for %s", c.Units, c.Amount)
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add("aor,password,balance\na@a.example,x,1.00\n")
	f.Add("\uFEFFaor,password,balance,identities,attributes\n\"a@a.example\",\"x\ny\",1,b@a.example;+1,a=b;c=\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := readImport(strings.NewReader(text))
		if err != nil || file.wrong.any() {
			return
		}
		if len(file.rows) == 0 {
			t.Error("no rows and nothing wrong")
		}
		for _, row := range file.rows {
			if _, err := readAccount(accountRow(row.account)); err != nil {
				t.Errorf("what was imported can't be read back: %v", err)
			}
		}
	})
}

// Everything that may happen at the same time does; the race detector judges.
func TestAllAtOnce(t *testing.T) {
	const messages = 200
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "alice@a.example", Password: "x", Balance: "100"})
	authorized := make(chan plugin.Record, messages)
	var group sync.WaitGroup
	group.Go(func() {
		defer close(authorized)
		var keys message.Generator
		for range messages {
			r := plugin.Request{Key: keys.New(time.Now()), Payer: "alice@a.example", Units: 1, HoldUntil: time.Now().Add(time.Hour)}
			a, err := n.charging.Authorize(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			authorized <- plugin.Record{Key: r.Key, Charged: true, Payer: r.Payer, Units: 1, Reserved: a.Reserved}
		}
	})
	group.Go(func() {
		for record := range authorized {
			if _, err := n.charging.Settle(t.Context(), []plugin.Record{record}); err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for i := range 20 {
			n.do(t.Context(), "POST", "/v1/accounts", fmt.Sprintf(`{"aor":"%d@a.example","password":"x"}`, i))
			n.do(t.Context(), "POST", "/v1/accounts/alice@a.example/credit", `{"amount":"1"}`)
			n.do(t.Context(), "GET", "/v1/accounts", "")
		}
	})
	group.Go(func() {
		for range messages {
			n.accounts.Verify(t.Context(), plugin.Credentials{Password: &plugin.Password{SystemID: "alice", Password: "x"}})
			n.accounts.Lookup(t.Context(), message.Address{User: "1", Host: "a.example"})
		}
	})
	group.Wait()
	if a := n.list(t)["alice@a.example"]; a.Balance != 118*plugin.Unit || a.Reserved != 0 {
		t.Errorf("the balance is %s with %s reserved, want 118.00 and nothing", a.Balance, a.Reserved)
	}
}
