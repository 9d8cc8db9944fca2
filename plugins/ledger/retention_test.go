package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// writeCDRs writes n CDRs of messages received at a time and settled later.
func writeCDRs(t *testing.T, tables plugin.Tables, keys *message.Generator, n int, received time.Time, later time.Duration) {
	t.Helper()
	var rows []plugin.Change
	for range n {
		r := plugin.Record{Key: keys.New(received), Payer: alice, Units: 1, Received: received, Settled: received.Add(later)}
		rows = append(rows, newCDR(&r, charge{amount: price, currency: "EUR"}, 0).row())
	}
	if err := tables.Commit(rows).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func countCDRs(t *testing.T, tables plugin.Tables) int {
	t.Helper()
	rows, err := tables.Scan(t.Context(), tableCDRs, nil, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func TestCDRsExpireByWhenTheyWerePaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the pauses between pages take no time
		now := time.Now()
		tables := plugintest.NewTables()
		b := openTestBook(t, tables, now)
		var keys message.Generator
		writeCDRs(t, tables, &keys, 2*pageSize, now.Add(-3*time.Hour), time.Second)
		writeCDRs(t, tables, &keys, 10, now.Add(-3*time.Hour), 2*time.Hour) // waited for their recipient
		writeCDRs(t, tables, &keys, 20, now.Add(-2*time.Hour), 0)           // just at the border
		writeCDRs(t, tables, &keys, 5, now, 0)
		for _, c := range []struct {
			before time.Time
			left   int
		}{
			{now.Add(-4 * time.Hour), 2*pageSize + 35}, {now.Add(-2 * time.Hour), 35},
			{now.Add(-2*time.Hour + time.Millisecond), 15}, {now.Add(-30 * time.Minute), 5},
		} {
			if err := b.expireCDRs(t.Context(), c.before); err != nil {
				t.Fatal(err)
			}
			if left := countCDRs(t, tables); left != c.left {
				t.Errorf("those of before %s: %d are left, want %d", c.before, left, c.left)
			}
		}
	})
}

func TestUnreadableCDRStaysAndIsSaid(t *testing.T) {
	now := time.Now()
	tables := plugintest.NewTables()
	b := openTestBook(t, tables, now)
	var keys message.Generator
	key := keys.New(now.Add(-4 * time.Hour))
	tables.Commit([]plugin.Change{{Table: tableCDRs, Key: key[:], Value: []byte{9}}})
	writeCDRs(t, tables, &keys, 3, now.Add(-3*time.Hour), 0)
	if err := b.expireCDRs(t.Context(), now); err == nil || !strings.Contains(err.Error(), "table cdrs, row") {
		t.Errorf("got %v", err)
	}
	if left := countCDRs(t, tables); left != 1 {
		t.Errorf("%d are left, want the unreadable one", left)
	}
	if err := (&book{tables: brokenScan{tables}}).expireCDRs(t.Context(), now); err == nil {
		t.Error("a disk that can't be read isn't said")
	}
	writeCDRs(t, tables, &keys, 3, now.Add(-3*time.Hour), 0)
	if err := (&book{tables: &shakyTables{Tables: tables}}).expireCDRs(t.Context(), now); err == nil || !strings.Contains(err.Error(), "remove rows of table cdrs") {
		t.Errorf("a disk that can't be written: got %v", err)
	}
}

func TestHousekeepingGoesOnUntilClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables := plugintest.NewTables()
		n := openNode(t, tables)
		var keys message.Generator
		writeCDRs(t, tables, &keys, 2*pageSize, time.Now(), 0)
		time.Sleep(defaultRetention)
		if left := countCDRs(t, tables); left != 2*pageSize {
			t.Errorf("%d are left before their time", left)
		}
		time.Sleep(housekeepingEvery + time.Second)
		if left := countCDRs(t, tables); left != 0 {
			t.Errorf("%d are left after their time", left)
		}
		if err := n.charging.Close(); err != nil {
			t.Fatal(err)
		}
		writeCDRs(t, tables, &keys, 1, time.Now().Add(-2*defaultRetention), 0)
		time.Sleep(2 * housekeepingEvery)
		if left := countCDRs(t, tables); left != 1 {
			t.Error("it goes on after Close")
		}
	})
}

// A failure is said and tried again.
func TestHousekeepingTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		tries := 0
		h := keepHouse(t.Context(), slog.New(slog.NewTextHandler(&said, nil)), func(context.Context, time.Time) error {
			tries++
			return errors.New("no disk")
		})
		time.Sleep(firstHousekeeping + 2*housekeepingEvery + time.Second)
		h.close()
		if tries != 3 || strings.Count(said.String(), "no disk") != 3 {
			t.Errorf("%d tries, said %s", tries, said.String())
		}
	})
}

func TestMetrics(t *testing.T) {
	now := time.Now()
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: alice, Password: "x", Balance: "0.03"})
	n.add(t, entry{AOR: "bob@a.example", Password: "x"})
	underWay(t, n.book, now, 1)
	settleRecord(t, n.book, now, underWay(t, n.book, now, 2))
	record := underWay(t, n.book, now, 3)
	record.Key = message.ID{4} // nobody has reserved for it
	settleRecord(t, n.book, now, record)
	settleRecord(t, n.book, now, record)
	for range 2 {
		if _, err := n.charging.Authorize(t.Context(), plugin.Request{Key: message.ID{5}, Payer: "bob@a.example", Units: 1}); err == nil {
			t.Error("bob has no money")
		}
		n.accounts.Verify(t.Context(), plugin.Credentials{})
	}
	got := map[string]float64{}
	for _, s := range n.metrics.Series() {
		name := s.Name
		for _, label := range s.Labels {
			name += fmt.Sprintf(",%s=%s", label.Name, label.Value)
		}
		got[name] = s.Value()
	}
	for name, want := range map[string]float64{
		"ledger_accounts": 2, "ledger_reservations_open": 2,
		"ledger_settlements_total,late=false": 1, "ledger_settlements_total,late=true": 1,
		"ledger_refusals_total,reason=insufficient-funds": 2, "ledger_refusals_total,reason=unauthenticated": 2,
		"ledger_refusals_total,reason=forbidden": 0, "ledger_refusals_total,reason=charging-failed": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v (there: %t), want %v", name, value, ok, want)
		}
	}
}
