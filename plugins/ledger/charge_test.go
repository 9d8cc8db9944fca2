package ledger

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// lateOf settles a record and returns what its CDR says of being late.
func lateOf(t *testing.T, b *book, now time.Time, r plugin.Record) bool {
	t.Helper()
	changes, err := b.settle(t.Context(), now, []plugin.Record{r})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Table == tableCDRs {
			written, err := readCDR(c)
			if err != nil {
				t.Fatal(err)
			}
			return written.Late
		}
	}
	t.Fatal("there is no CDR")
	return false
}

func TestLate(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name    string
		settled time.Duration // after the authorisation; the hold lasts a minute
		want    bool
	}{
		{"at once", 0, false},
		{"just in time", time.Minute - 1, false},
		{"when it lapses", time.Minute, true},
		{"long after", time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := openTestBook(t, plugintest.NewTables(), start)
			addTo(t, b, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
			r := plugin.Request{Key: message.ID{1}, Payer: "alice@a.example", Units: 1, HoldUntil: start.Add(time.Minute)}
			a, err := b.authorize(start, tariff{price, "EUR"}, r)
			if err != nil {
				t.Fatal(err)
			}
			record := plugin.Record{Key: r.Key, Charged: true, Payer: r.Payer, Units: 1, Reserved: a.Reserved}
			if got := lateOf(t, b, start.Add(c.settled), record); got != c.want {
				t.Errorf("late is %t, want %t", got, c.want)
			}
			if got := lateOf(t, b, start.Add(2*time.Hour), record); got != c.want {
				t.Errorf("when it is repeated late is %t, want %t", got, c.want)
			}
		})
	}
}

func TestLapsedRowsAreRemoved(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, reopen := range []bool{false, true} {
		tables := plugintest.NewTables()
		b := openTestBook(t, tables, start)
		addTo(t, b, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
		for i := range 3 {
			r := plugin.Request{Key: message.ID{byte(i)}, Payer: "alice@a.example", Units: 1, HoldUntil: start.Add(time.Duration(3-i) * time.Minute)}
			a, err := b.authorize(start, tariff{price, "EUR"}, r)
			if err != nil {
				t.Fatal(err)
			}
			tables.Commit(a.Changes)
		}
		now := start.Add(2 * time.Minute)
		if reopen {
			b = openTestBook(t, tables, now)
		} else if _, err := b.settle(t.Context(), now, nil); err != nil {
			t.Fatal(err)
		}
		rows, err := tables.Scan(t.Context(), tableHolds, nil, nil, 10)
		if err != nil || len(rows) != 1 || rows[0].Key[0] != 0 {
			t.Errorf("reopened=%t: the rows %v are left, error %v; want the first hold's", reopen, rows, err)
		}
		if held := b.payer("alice@a.example").held; held != price {
			t.Errorf("reopened=%t: %s is held, want %s", reopen, held, price)
		}
	}
}
