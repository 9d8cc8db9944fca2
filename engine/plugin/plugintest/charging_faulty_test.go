package plugintest

import (
	"context"
	"encoding/json"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// purse is a small sound charging plugin: whole units, kept on Tables. Its rows
// are funds and spent by account, holds and settled by message.
type purse struct {
	tables *Tables

	mu      sync.Mutex
	funds   map[string]int
	spent   map[string]int
	holds   map[message.ID]purseHold
	settled map[message.ID]bool
}

type purseHold struct {
	Account string
	Units   int
	Until   time.Time
}

func openPurse(t T, tables *Tables) *purse {
	p := &purse{
		tables: tables,
		funds:  map[string]int{}, spent: map[string]int{},
		holds: map[message.ID]purseHold{}, settled: map[message.ID]bool{},
	}
	loadRows(t, tables, "funds", func(key string, units int) { p.funds[key] = units })
	loadRows(t, tables, "spent", func(key string, units int) { p.spent[key] = units })
	loadRows(t, tables, "settled", func(key string, settled bool) { p.settled[message.ID([]byte(key))] = settled })
	loadRows(t, tables, "holds", func(key string, h purseHold) { p.holds[message.ID([]byte(key))] = h })
	return p
}

func loadRows[V any](t T, tables *Tables, name string, each func(key string, v V)) {
	rows, err := tables.Scan(t.Context(), name, nil, nil, 1000)
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	for _, row := range rows {
		var v V
		if err := json.Unmarshal(row.Value, &v); err != nil {
			t.Fatalf("row: %v", err)
		}
		each(string(row.Key), v)
	}
}

func jsonRow(table string, key []byte, v any) plugin.Change {
	value, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return plugin.Change{Table: table, Key: key, Value: value}
}

func (p *purse) fund(account string, units int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.funds[account] = units
	p.tables.Commit([]plugin.Change{jsonRow("funds", []byte(account), units)})
}

func (p *purse) paid(account string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spent[account]
}

func (p *purse) Authorize(_ context.Context, r plugin.Request) (plugin.Authorization, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free(r.Payer) < r.Units {
		return plugin.Authorization{}, message.Fail(message.InsufficientFunds, "short")
	}
	return p.hold(r), nil
}

// free is what an account can still reserve. Lapsed holds don't count.
func (p *purse) free(account string) int {
	free := p.funds[account] - p.spent[account]
	for _, h := range p.holds {
		if h.Account == account && time.Now().Before(h.Until) {
			free -= h.Units
		}
	}
	return free
}

func (p *purse) hold(r plugin.Request) plugin.Authorization {
	h := purseHold{Account: r.Payer, Units: r.Units, Until: r.HoldUntil}
	p.holds[r.Key] = h
	return plugin.Authorization{Changes: []plugin.Change{jsonRow("holds", r.Key[:], h)}}
}

func (p *purse) Settle(_ context.Context, records []plugin.Record) ([]plugin.Change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var changes []plugin.Change
	for _, r := range records {
		changes = append(changes, p.settle(r)...)
	}
	return changes, nil
}

func (p *purse) settle(r plugin.Record) []plugin.Change {
	delete(p.holds, r.Key)
	changes := []plugin.Change{{Table: "holds", Key: r.Key[:]}}
	if !r.Charged {
		return changes
	}
	if !p.settled[r.Key] {
		p.settled[r.Key] = true
		p.spent[r.Payer] += r.Units
	}
	return append(changes, jsonRow("spent", []byte(r.Payer), p.spent[r.Payer]), jsonRow("settled", r.Key[:], true))
}

func (p *purse) Close() error { return nil }

// brokenPurse does one thing in another way than a sound one. Nil: as it does.
type brokenPurse struct {
	*purse
	opened    func(*purse)
	authorize func(*purse, plugin.Request) (plugin.Authorization, error)
	settles   func(*purse, []plugin.Record) ([]plugin.Change, error)
}

func (b brokenPurse) Authorize(ctx context.Context, r plugin.Request) (plugin.Authorization, error) {
	if b.authorize == nil {
		return b.purse.Authorize(ctx, r)
	}
	return b.authorize(b.purse, r)
}

func (b brokenPurse) Settle(ctx context.Context, records []plugin.Record) ([]plugin.Change, error) {
	if b.settles == nil {
		return b.purse.Settle(ctx, records)
	}
	return b.settles(b.purse, records)
}

// harness opens such a purse.
func (b brokenPurse) harness(T) ChargingHarness {
	tables := NewTables()
	return ChargingHarness{
		Tables: tables,
		Open: func(t T) plugin.Charging {
			b.purse = openPurse(t, tables)
			if b.opened != nil {
				b.opened(b.purse)
			}
			return b
		},
		Fund: func(_ T, account string, units int) { b.fund(account, units) },
		Paid: func(_ T, account string) int { return b.paid(account) },
	}
}

func TestChargingMatrix(t *testing.T) {
	prove(t, chargingCases, brokenPurse{}.harness, []fault[ChargingHarness]{
		{"never lets an account empty itself", "authorizes all that the payer can pay",
			brokenPurse{authorize: neverToTheLast}.harness},
		{"gives credit to who has nothing", "refuses for good what the payer can't pay",
			brokenPurse{authorize: creditToThePoor}.harness},
		{"says try again to who has nothing", "refuses for good what the payer can't pay",
			brokenPurse{authorize: hopeToThePoor}.harness},
		{"reserves one unit, whatever is asked", "reservations count against the funds at once",
			brokenPurse{authorize: reserveOneUnit}.harness},
		{"looks first and reserves later", "reservations made at the same time never exceed the funds",
			brokenPurse{authorize: lookThenReserve}.harness},
		{"pays one record of a call", "a charged record is paid",
			brokenPurse{settles: payFirstOnly}.harness},
		{"lets what was paid be spent again", "a charged record is paid",
			brokenPurse{settles: refill}.harness},
		{"pays one unit, whatever was authorized", "several units are paid together",
			brokenPurse{settles: payOneUnit}.harness},
		{"keeps what is given back, in memory", "a record that is not charged is given back",
			brokenPurse{settles: keepGivenBack}.harness},
		{"knows settled keys only between calls", "a key that comes twice in one call is paid once",
			brokenPurse{settles: blindWithinCall}.harness},
		{"forgets settled keys after a call", "a call that is repeated pays once, whichever is committed",
			brokenPurse{settles: forgetAfterCall}.harness},
		{"has no changes for a repeated call", "a call that is repeated pays once, whichever is committed",
			brokenPurse{settles: silentOnRepeat}.harness},
		{"commits by itself that a key is settled", "records whose settlement was lost are paid after a restart",
			brokenPurse{settles: markAlone}.harness},
		{"forgets settled keys over a restart", "records whose settlement was kept are not paid again after a restart",
			brokenPurse{opened: func(p *purse) { clear(p.settled) }}.harness},
		{"keeps reservations in memory only", "a reservation is as durable as its changes",
			brokenPurse{opened: func(p *purse) { clear(p.holds) }}.harness},
		{"commits reservations by itself", "a reservation whose changes were never committed ends with the process",
			brokenPurse{authorize: commitAlone}.harness},
		{"leaves the row of a paid reservation", "a reservation that was paid doesn't come back after a restart",
			brokenPurse{settles: leaveRow(true)}.harness},
		{"leaves the row of a reservation given back", "a reservation that was given back doesn't come back after a restart",
			brokenPurse{settles: leaveRow(false)}.harness},
		{"never lets a reservation lapse", "a reservation lapses",
			brokenPurse{authorize: holdForAnHour}.harness},
		{"renews reservations at a restart", "a reservation lapses over a restart",
			brokenPurse{opened: renewHolds}.harness},
		{"forgives what comes late", "what is settled after its reservation lapsed is paid",
			brokenPurse{settles: forgiveLate}.harness},
		{"forgives what it doesn't remember", "what is settled without a reservation is paid",
			brokenPurse{settles: forgiveUnknown}.harness},
		{"puts too much into Reserved", "Reserved is at most 1,024 octets",
			brokenPurse{authorize: bulky}.harness},
		{"writes a total for each account", "the changes of Authorize only create rows of their own",
			brokenPurse{authorize: writeTotal}.harness},
		{"deletes in Authorize", "the changes of Authorize only create rows of their own",
			brokenPurse{authorize: deleteRow}.harness},
		{"names a route to nowhere", "routes that are asked for name a transport",
			brokenPurse{authorize: misroute}.harness},
	})
}

func (p *purse) unchecked(r plugin.Request) (plugin.Authorization, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold(r), nil
}

func neverToTheLast(p *purse, r plugin.Request) (plugin.Authorization, error) {
	if r.Units == p.funds[r.Payer] && r.Units > 1 {
		return plugin.Authorization{}, message.Fail(message.InsufficientFunds, "nothing would be left")
	}
	return p.Authorize(context.TODO(), r)
}

func creditToThePoor(p *purse, r plugin.Request) (plugin.Authorization, error) {
	if p.funds[r.Payer] == 0 {
		return p.unchecked(r)
	}
	return p.Authorize(context.TODO(), r)
}

func hopeToThePoor(p *purse, r plugin.Request) (plugin.Authorization, error) {
	if p.funds[r.Payer] == 0 {
		return plugin.Authorization{}, message.FailForNow(message.InsufficientFunds, "short")
	}
	return p.Authorize(context.TODO(), r)
}

func reserveOneUnit(p *purse, r plugin.Request) (plugin.Authorization, error) {
	r.Units = 1
	return p.Authorize(context.TODO(), r)
}

func lookThenReserve(p *purse, r plugin.Request) (plugin.Authorization, error) {
	p.mu.Lock()
	free := p.free(r.Payer)
	p.mu.Unlock()
	for range 1000 {
		runtime.Gosched()
	}
	if free < r.Units {
		return plugin.Authorization{}, message.Fail(message.InsufficientFunds, "short")
	}
	return p.unchecked(r)
}

func payFirstOnly(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	return p.Settle(context.TODO(), records[:1])
}

func refill(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	changes, err := p.Settle(context.TODO(), records)
	p.funds[chargingAccount] += p.spent[chargingAccount]
	return changes, err
}

func payOneUnit(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	for i := range records {
		records[i].Units = 1
	}
	return p.Settle(context.TODO(), records)
}

func keepGivenBack(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	changes, err := p.Settle(context.TODO(), records)
	for _, r := range records {
		if !r.Charged {
			p.holds[r.Key] = purseHold{Account: r.Payer, Units: r.Units, Until: time.Now().Add(time.Hour)}
		}
	}
	return changes, err
}

func blindWithinCall(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	seen := map[message.ID]bool{}
	for _, r := range records {
		if seen[r.Key] {
			delete(p.settled, r.Key)
			p.settle(r)
		}
		seen[r.Key] = true
	}
	if len(seen) < len(records) {
		clear(p.settled)
	}
	return p.Settle(context.TODO(), records)
}

func forgetAfterCall(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	changes, err := p.Settle(context.TODO(), records)
	for _, r := range records {
		if len(loadedRow(p.tables, "settled", r.Key[:])) == 0 {
			delete(p.settled, r.Key)
		}
	}
	return changes, err
}

func loadedRow(tables *Tables, name string, key []byte) []plugin.Change {
	rows, _ := tables.Scan(context.TODO(), name, key, append(key[:len(key):len(key)], 0), 1)
	return rows
}

func silentOnRepeat(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	before := len(p.settled)
	changes, err := p.Settle(context.TODO(), records)
	if before > 0 && len(p.settled) == before {
		return nil, err
	}
	return changes, err
}

func markAlone(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	for _, r := range records {
		if r.Charged {
			p.tables.Commit([]plugin.Change{jsonRow("settled", r.Key[:], true)})
		}
	}
	return p.Settle(context.TODO(), records)
}

func commitAlone(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	p.tables.Commit(a.Changes)
	a.Changes = nil
	return a, err
}

func leaveRow(charged bool) func(*purse, []plugin.Record) ([]plugin.Change, error) {
	return func(p *purse, records []plugin.Record) ([]plugin.Change, error) {
		changes, err := p.Settle(context.TODO(), records)
		if records[0].Charged == charged {
			changes = changes[1:]
		}
		return changes, err
	}
}

func holdForAnHour(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	if err == nil && p.funds[r.Payer] == 1 {
		h := p.holds[r.Key]
		h.Until = time.Now().Add(time.Hour)
		p.holds[r.Key] = h
	}
	return a, err
}

func renewHolds(p *purse) {
	for key, h := range p.holds {
		h.Until = h.Until.Add(time.Hour)
		p.holds[key] = h
	}
}

func forgiveLate(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	for i, r := range records {
		if h, ok := p.holds[r.Key]; ok && time.Now().After(h.Until) {
			records[i].Charged = false
		}
	}
	return p.Settle(context.TODO(), records)
}

func forgiveUnknown(p *purse, records []plugin.Record) ([]plugin.Change, error) {
	for i, r := range records {
		if _, ok := p.holds[r.Key]; !ok && !p.settled[r.Key] {
			records[i].Charged = false
		}
	}
	return p.Settle(context.TODO(), records)
}

func bulky(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	a.Reserved = make([]byte, 1025)
	return a, err
}

func misroute(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	a.Routes = []plugin.Route{{Address: "somewhere"}}
	return a, err
}

func writeTotal(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	a.Changes = append(a.Changes, jsonRow("totals", []byte(r.Payer), r.Units))
	return a, err
}

func deleteRow(p *purse, r plugin.Request) (plugin.Authorization, error) {
	a, err := p.Authorize(context.TODO(), r)
	a.Changes = append(a.Changes, plugin.Change{Table: "old", Key: r.Key[:]})
	return a, err
}

func TestChargingUnlimited(t *testing.T) {
	Charging(t, func(T) ChargingHarness {
		return ChargingHarness{
			Tables:    NewTables(),
			Open:      func(T) plugin.Charging { return generous{} },
			Fund:      func(T, string, int) {},
			Unlimited: true,
		}
	})
}

// generous lets everybody pay with nothing.
type generous struct{}

func (generous) Authorize(context.Context, plugin.Request) (plugin.Authorization, error) {
	return plugin.Authorization{}, nil
}

func (generous) Settle(context.Context, []plugin.Record) ([]plugin.Change, error) { return nil, nil }

func (generous) Close() error { return nil }
