package ledger

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// sheetRows are rows of each kind that people ask for, as they are written.
func sheetRows(t *testing.T) []plugin.Change {
	t.Helper()
	e := entry{AOR: "alice@sip.example.com", Password: "secret", Balance: "10.50", Identities: []string{"+4312345", "ann@sip.example.com"}, Attributes: map[string]string{"plan": "gold"}}
	alice, err := e.account()
	if err != nil {
		t.Fatal(err)
	}
	alice.serial, alice.created, alice.spent = 7, at(t, "2027-01-02T03:04:05Z"), 1_230_000_000
	carol, err := entry{AOR: "carol@sip.example.com", Password: "secret"}.account()
	if err != nil {
		t.Fatal(err)
	}
	carol.suspended.Store(true)
	key := message.ID{0x01, 0x94, 0x25, 0x6b, 0xd1, 0x88, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}
	paid := plugin.Record{
		Key: key, Payer: alice.id, Destination: "4398", Units: 3, Service: "sms", Transport: "vendor",
		From:      message.Address{User: "alice", Host: "sip.example.com"},
		Recipient: message.Address{User: "+4398765"},
		Received:  at(t, "2027-01-02T03:04:05Z"), Settled: at(t, "2027-01-02T03:04:06Z").Add(250 * time.Millisecond),
	}
	odd := paid
	odd.Key[15], odd.Destination, odd.From.User = 2, "a\x00b", "\xff"
	return []plugin.Change{
		accountRow(alice), accountRow(carol), spentRow(alice),
		newCDR(&paid, charge{amount: 150_000_000, currency: "EUR"}, 0).row(),
		newCDR(&odd, charge{amount: 1, currency: "EUR"}, markLate|markUnpaid).row(),
	}
}

func TestSheets(t *testing.T) {
	byTable := map[string]plugin.Sheet{}
	for _, s := range sheets() {
		byTable[s.Table] = s
	}
	var got strings.Builder
	for _, row := range sheetRows(t) {
		s := byTable[row.Table]
		values, err := s.Read(row)
		if err != nil || len(values) != len(s.Columns) {
			t.Fatalf("%s: %d values for %d columns, %v", s.Table, len(values), len(s.Columns), err)
		}
		fmt.Fprintf(&got, "%s\n", s.Name)
		for i, c := range s.Columns {
			if !isOf(c.Type, values[i]) {
				t.Errorf("%s.%s is declared as %s and is a %T", s.Name, c.Name, c.Type, values[i])
			}
			fmt.Fprintf(&got, "  %s %s: %v\n", c.Name, c.Type, values[i])
		}
	}
	want, err := os.ReadFile("testdata/sheets.txt")
	if err != nil || got.String() != string(want) {
		t.Errorf("testdata/sheets.txt: %v, got:\n%s", err, got.String())
	}
	if strings.Contains(got.String(), "gold") {
		t.Error("it shows what nobody asked for")
	}
}

// isOf tells whether a value has the Go type that its column declares, and may
// be stored as one.
func isOf(kind plugin.ColumnType, value any) bool {
	if value == nil {
		return true
	}
	switch v := value.(type) {
	case string:
		return kind == plugin.ColumnText && utf8.ValidString(v) && !strings.Contains(v, "\x00")
	case int64:
		return kind == plugin.ColumnNumber
	case bool:
		return kind == plugin.ColumnFlag
	case time.Time:
		return kind == plugin.ColumnMoment
	case plugin.Money:
		return kind == plugin.ColumnMoney
	case message.ID:
		return kind == plugin.ColumnID
	}
	return false
}

func TestSheetsRefuseOtherRows(t *testing.T) {
	for _, s := range sheets() {
		if s.Read == nil {
			continue
		}
		if _, err := s.Read(plugin.Change{Table: s.Table, Key: []byte("x"), Value: []byte{9}}); err == nil {
			t.Errorf("%s: a row of another version is read", s.Table)
		}
	}
}

// TestSheetsCoverAllTables: a storage learns of each table, from each plugin of
// the technology, and of each only once.
func TestSheetsCoverAllTables(t *testing.T) {
	for _, d := range []plugin.Definition{Accounts, Charging} {
		tables := map[string]int{}
		for _, s := range d.Sheets {
			tables[s.Table]++
			if s.Name != "" && (s.Doc == "" || s.Read == nil || len(s.Columns) == 0) {
				t.Errorf("%s: the sheet %s says too little", d.Kind, s.Name)
			}
			for _, c := range s.Columns {
				if c.Doc == "" {
					t.Errorf("%s.%s has no doc", s.Name, c.Name)
				}
			}
		}
		for _, table := range []string{tableAccounts, tableImports, tableSpent, tableHolds, tableCredits, tableCDRs} {
			if tables[table] != 1 {
				t.Errorf("%s shows the table %s %d times", d.Kind, table, tables[table])
			}
			delete(tables, table)
		}
		if len(tables) > 0 {
			t.Errorf("%s shows %v", d.Kind, tables)
		}
	}
}
