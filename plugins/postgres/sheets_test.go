package postgres

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/ledger"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// fakeSheets are one of each type of column. The value of a row is
// "account|text", and its key a number.
func fakeSheets() []plugin.Sheet {
	return []plugin.Sheet{{
		Table: "messages", Name: "waiting", Doc: "a message that waits; it's kept until it's delivered",
		Columns: []plugin.Column{
			{Name: "id", Type: plugin.ColumnID, Doc: "the message"},
			{Name: "account", Type: plugin.ColumnText, Doc: "the recipient's account", Indexed: true},
			{Name: "attempts", Type: plugin.ColumnNumber, Doc: "so many"},
			{Name: "quarantined", Type: plugin.ColumnFlag, Doc: "set aside"},
			{Name: "received", Type: plugin.ColumnMoment, Doc: "when it came", Indexed: true},
			{Name: "order", Type: plugin.ColumnText, Doc: "a word of SQL"},
		},
		Read: readWaiting,
	}, {
		Table: "ledger/cdrs", Name: "cdrs", Doc: "a CDR",
		Columns: []plugin.Column{
			{Name: "payer", Type: plugin.ColumnText, Doc: "who paid", Indexed: true},
			{Name: "amount", Type: plugin.ColumnMoney, Doc: "what was paid"},
		},
		Read: func(c plugin.Change) ([]any, error) {
			payer, amount, _ := strings.Cut(string(c.Value), "|")
			n, err := strconv.ParseInt(amount, 10, 64)
			return []any{payer, plugin.Money(n)}, err
		},
	}, {Table: "outbox"}}
}

var errUnreadable = errors.New("not a message")

func readWaiting(c plugin.Change) ([]any, error) {
	account, text, ok := strings.Cut(string(c.Value), "|")
	if !ok {
		return nil, errUnreadable
	}
	var id message.ID
	copy(id[:], c.Key)
	n, err := strconv.Atoi(string(c.Key))
	if err != nil {
		return nil, err
	}
	moment := time.Date(2026, 3, 1, 12, 0, n, 123_456_789, time.FixedZone("", 3600))
	return []any{id, account, int64(n), n%2 == 0, moment, text}, nil
}

func waitingRow(n int, account, text string) plugin.Change {
	return row("messages", strconv.Itoa(n), account+"|"+text)
}

// TestQuestions asks what operators ask, and compares with a golden file.
func TestQuestions(t *testing.T) {
	server := postgrestest.Start(t)
	s := openAt(t, plugin.Env{Log: quiet(), Sheets: fakeSheets()}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	apply(t, s, f,
		waitingRow(1, "alice@a.example", "x"), waitingRow(2, "bob@a.example", "y"), waitingRow(3, "alice@a.example", "z"),
		row("ledger/cdrs", "1", "alice@a.example|10000000"), row("ledger/cdrs", "2", "alice@a.example|1"),
		row("ledger/cdrs", "3", fmt.Sprintf("bob@a.example|%d", int64(math.MaxInt64))), row("ledger/cdrs", "4", fmt.Sprintf("bob@a.example|%d", int64(math.MinInt64))))
	apply(t, s, f, waitingRow(3, "alice@a.example", "zz"), plugin.Change{Table: "messages", Key: []byte("9")})
	var out strings.Builder
	for _, sql := range []string{
		"SELECT account, count(*) FROM imgate.waiting GROUP BY account ORDER BY account",
		"SELECT * FROM imgate.waiting ORDER BY id",
		"SELECT payer, amount FROM imgate.cdrs WHERE payer = 'alice@a.example' ORDER BY amount",
		"SELECT payer, sum(amount), min(amount), max(amount) FROM imgate.cdrs GROUP BY payer ORDER BY payer",
		"SELECT table_name FROM information_schema.views WHERE table_schema = 'imgate' ORDER BY table_name",
		"SELECT column_name, data_type, col_description('imgate.waiting'::regclass, ordinal_position) FROM information_schema.columns WHERE table_schema = 'imgate' AND table_name = 'waiting' ORDER BY ordinal_position",
		"SELECT obj_description('imgate.waiting'::regclass)",
		"SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'imgate' AND tablename LIKE 'rows%' ORDER BY indexname",
	} {
		fmt.Fprintf(&out, "%s\n", sql)
		for _, r := range server.Query(t, sql) {
			fmt.Fprintf(&out, "    %s\n", strings.Join(r, " | "))
		}
	}
	golden(t, "questions.txt", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s", name, got)
	}
}

// TestClerkSeesViewsAlone: a role that may read the views can't read the rows.
func TestClerkSeesViewsAlone(t *testing.T) {
	server := postgrestest.Start(t)
	openAt(t, plugin.Env{Log: quiet(), Sheets: fakeSheets()}, server.URL())
	for _, sql := range []string{"CREATE ROLE clerk", "GRANT USAGE ON SCHEMA imgate TO clerk", "GRANT SELECT ON imgate.cdrs TO clerk"} {
		server.Query(t, sql)
	}
	for relation, want := range map[string]string{"cdrs": "t", "waiting": "f", "rows_ledger_cdrs": "f", "core_rows": "f"} {
		got := server.Query(t, "SELECT has_table_privilege('clerk', 'imgate."+relation+"', 'SELECT')")[0][0]
		if got != want {
			t.Errorf("the clerk may read %s: %s", relation, got)
		}
	}
}

// TestUnreadableRows: whatever a sheet makes of a row, the row is written.
func TestUnreadableRows(t *testing.T) {
	server := postgrestest.Start(t)
	metrics := plugin.NewMetrics()
	values := map[string][]any{
		"nothing":  {nil, nil},
		"few":      {"x"},
		"type":     {42, nil},
		"NUL":      {"a\x00b", time.Now()},
		"UTF-8":    {"a\xffb", nil},
		"long":     {strings.Repeat("ä\x00", 100_000), nil},
		"octets":   {strings.Repeat("\x00\xff", 3000), nil},
		"random":   {strings.Repeat("\xf0\x9f", 3000), nil},
		"early":    {nil, time.Time{}},
		"far":      {nil, time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"negative": {nil, time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	sheet := plugin.Sheet{
		Table: "odd", Name: "odd",
		Columns: []plugin.Column{{Name: "text", Type: plugin.ColumnText, Indexed: true}, {Name: "moment", Type: plugin.ColumnMoment}},
		Read: func(c plugin.Change) ([]any, error) {
			if string(c.Key) == "error" {
				return nil, errUnreadable
			}
			return values[string(c.Key)], nil
		},
	}
	s := openAt(t, plugin.Env{Log: quiet(), Metrics: metrics, Sheets: []plugin.Sheet{sheet}}, server.URL())
	f := acquire(t, s, "a", time.Hour)
	values["error"] = nil
	for key := range values {
		apply(t, s, f, row("odd", key, "kept"))
		if got := valueOf(t, s, "odd", key); got != "kept" {
			t.Errorf("%s: the row is %q", key, got)
		}
	}
	if got := gauge(metrics, "postgres_unreadable_rows_total"); got != 3 {
		t.Errorf("%v unreadable rows counted, want 3", got)
	}
	if got := server.Query(t, "SELECT text FROM imgate.odd WHERE text LIKE 'a%' ORDER BY text"); len(got) != 2 || got[0][0] != "a\uFFFDb" {
		t.Errorf("the texts are %q", got)
	}
}

func FuzzReadable(f *testing.F) {
	for _, s := range []string{"", "plain", "a\x00b", "\xff\xfe", strings.Repeat("ä", 600), strings.Repeat("\x80", 2000), strings.Repeat("\x00", 70_000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, indexed := range []bool{false, true} {
			got := readable(s, indexed)
			limit := maxText
			if indexed {
				limit = maxIndexed
			}
			if !utf8.ValidString(got) || strings.Contains(got, "\x00") || len(got) > limit {
				t.Errorf("%q became %q", s, got)
			}
			if len(s) <= limit && utf8.ValidString(s) && !strings.Contains(s, "\x00") && got != s {
				t.Errorf("%q needn't have been changed to %q", s, got)
			}
		}
	})
}

// TestSheetsThatCannotBe lists what a plugin's author may do wrong.
func TestSheetsThatCannotBe(t *testing.T) {
	read := func(plugin.Change) ([]any, error) { return nil, nil }
	columns := func(c ...plugin.Column) []plugin.Column { return c }
	text := plugin.Column{Name: "a", Type: plugin.ColumnText}
	for name, sheets := range map[string][]plugin.Sheet{
		"a table with a capital": {{Table: "Messages"}},
		"a table too long":       {{Table: strings.Repeat("a", maxTable+1)}},
		"a name with a digit":    {{Table: "a", Name: "b1"}},
		"a name of the core":     {{Table: "a", Name: "core_rows"}},
		"a name of a relation":   {{Table: "a", Name: "rows_b"}},
		"a table twice":          {{Table: "a"}, {Table: "a"}},
		"a name twice":           {{Table: "a", Name: "b"}, {Table: "c", Name: "b"}},
		"no Read":                {{Table: "a", Columns: columns(text)}},
		"a column twice":         {{Table: "a", Read: read, Columns: columns(text, text)}},
		"an unknown type":        {{Table: "a", Read: read, Columns: columns(plugin.Column{Name: "a", Type: "blob"})}},
		"a column with a quote":  {{Table: "a", Read: read, Columns: columns(plugin.Column{Name: `a"`, Type: plugin.ColumnText})}},
	} {
		if _, err := tablesOf(sheets); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestSheetOfTheEngineFits(t *testing.T) {
	if _, err := tablesOf(fakeSheets()); err != nil {
		t.Error(err)
	}
	for _, table := range []string{"spool", "ledger/cdrs", "a/b/c"} {
		if got := tableOfRelation((sheetTable(table)).relation()); got != table {
			t.Errorf("%s came back as %s", table, got)
		}
	}
}

func sheetTable(name string) table { return table{name: name} }

// TestShippedSheetsFit: what we ship can be laid out.
func TestShippedSheetsFit(t *testing.T) {
	sheets := spool.Sheets()
	for _, s := range ledger.Accounts.Sheets {
		s.Table = ledger.Accounts.Name + "/" + s.Table
		sheets = append(sheets, s)
	}
	server := postgrestest.Start(t)
	for range 2 { // the second time there is nothing to do
		openAt(t, plugin.Env{Log: quiet(), Sheets: sheets}, server.URL())
	}
	for _, s := range sheets {
		if s.Name != "" {
			server.Query(t, "SELECT * FROM imgate."+s.Name)
		}
	}
}
