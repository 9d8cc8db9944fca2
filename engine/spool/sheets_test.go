package spool

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// secretText is what no column may hold.
const secretText = "meet me at nine"

// sheetRows has a row for each sheet that has a name, with what a peer may put
// where it can.
func sheetRows() map[string]plugin.Change {
	e := plannedEntry()
	e.Message.ID = message.ID{1, 2, 3, 15: 4}
	e.Message.PublicID = "AAECAwQFBgcICQoLDA0ODw"
	e.Message.Body = []byte(secretText)
	e.Message.DisplayName, e.Key = secretText, secretText
	e.Message.Headers = []message.Header{{Name: "Subject", Value: secretText}}
	e.Message.ContentType = "text/plain\x00;\xff"
	e.Submitter, e.Message.NotBefore, e.Message.Missing = "1001", e.Message.Received.Add(time.Minute), 2
	e.Copy = Copy{Device: "<urn:uuid:1>\x00", Of: message.ID{1, 2, 2}}
	s := e.Summary()
	s.State, s.Reason, s.Attempts, s.Ended = StateFailed, message.Declined, 2, s.Received.Add(90*time.Second)
	s.Submission = DigestKey("k")
	s.Deliveries = []DeliverySummary{
		{Transport: "sip", Device: "<urn:uuid:1>", State: StateFailed, Reason: message.Declined}, {Transport: "sip", State: StateHandedOver},
	}
	state := State{Attempts: 3, Quarantined: message.Unbuildable, HandedOver: true, Deliveries: []Delivery{
		{Device: "d", Transport: "sip", Refused: message.Declined}, {Transport: "smpp", Parts: []Part{{PeerID: "42"}}},
	}, Fallback: true, Earlier: 1}
	w := Window{Digest: DigestKey("k"), Key: "sms\x00per_sender\x001001", Began: e.Message.Received, Per: time.Hour, Count: 7}
	b := plugin.Binding{
		Account: "1001", AOR: e.Message.From, Transport: "sip", Contact: "sip:1001@192.0.2.1", Flow: "udp 192.0.2.1:5060",
		Device: "<urn:uuid:1>", Q: 1000, Window: 50, Expires: e.Expiry, CallID: "c", CSeq: 1,
		Push: plugin.Push{Provider: "fcm", Param: "app", ID: secretText}, Asleep: true,
	}
	id := e.Message.ID
	part := samplePart()
	part.Arrival.Message.Body, part.Arrival.Message.DisplayName = e.Message.Body, secretText
	return map[string]plugin.Change{
		"parts":    part.row(),
		"waiting":  {Table: tableMessages, Key: id[:], Value: encodeEntry(e)},
		"attempts": {Table: tableStates, Key: id[:], Value: encodeState(state)},
		"ended":    s.Row(),
		"windows":  w.row(),
		"devices":  Device{"<urn:uuid:1>", "sip", "1001", e.Expiry}.row(),
		"bindings": {Table: tableBindings, Key: bindingKey(b), Value: encodeBinding(b)},
	}
}

// TestSheets compares what operators read with testdata/sheets.txt.
func TestSheets(t *testing.T) {
	var got strings.Builder
	rows := sheetRows()
	for _, s := range Sheets() {
		if s.Name == "" {
			fmt.Fprintf(&got, "%s: nobody asks for it\n\n", s.Table)
			continue
		}
		row := rows[s.Name]
		if row.Table != s.Table {
			t.Fatalf("sheet %s is of table %q, its row of %q", s.Name, s.Table, row.Table)
		}
		values, err := s.Read(row)
		if err != nil || len(values) != len(s.Columns) {
			t.Fatalf("%s: %d values for %d columns, %v", s.Name, len(values), len(s.Columns), err)
		}
		fmt.Fprintf(&got, "%s of %s: %s\n", s.Name, s.Table, s.Doc)
		for i, c := range s.Columns {
			checkValue(t, s.Name, c, values[i])
			indexed := ""
			if c.Indexed {
				indexed = ", indexed"
			}
			fmt.Fprintf(&got, "  %s (%s%s) = %v: %s\n", c.Name, c.Type, indexed, values[i], c.Doc)
		}
		got.WriteString("\n")
	}
	want, err := os.ReadFile("testdata/sheets.txt")
	if err != nil || got.String() != string(want) {
		t.Errorf("%v; got:\n%s", err, got.String())
	}
}

var columnName = regexp.MustCompile(`^[a-z_]{1,40}$`)

func checkValue(t *testing.T, sheet string, c plugin.Column, value any) {
	t.Helper()
	if !columnName.MatchString(c.Name) || c.Doc == "" {
		t.Errorf("%s: column %q, %q", sheet, c.Name, c.Doc)
	}
	if strings.Contains(fmt.Sprint(value), secretText) {
		t.Errorf("%s.%s shows what the message says: %v", sheet, c.Name, value)
	}
	ok := false
	switch c.Type {
	case plugin.ColumnText:
		var s string
		s, ok = value.(string)
		ok = ok && utf8.ValidString(s) && !strings.Contains(s, "\x00")
	case plugin.ColumnNumber:
		_, ok = value.(int64)
	case plugin.ColumnFlag:
		_, ok = value.(bool)
	case plugin.ColumnMoment:
		_, ok = value.(time.Time)
	case plugin.ColumnID:
		_, ok = value.(message.ID)
	}
	if !ok {
		t.Errorf("%s.%s is of type %s and holds %T %v", sheet, c.Name, c.Type, value, value)
	}
}

// TestSheetsLeaveOut: what a row doesn't have is nil.
func TestSheetsLeaveOut(t *testing.T) {
	e := sampleEntry()
	e.Record, e.Account, e.Plan.Labels = nil, "", nil
	values := readAs(t, "waiting", plugin.Change{Key: e.Message.ID[:], Value: encodeEntry(e)})
	for _, column := range []string{"payer", "account", "labels"} {
		if values[column] != nil {
			t.Errorf("%s is %v, want nil", column, values[column])
		}
	}
}

func readAs(t *testing.T, name string, row plugin.Change) map[string]any {
	t.Helper()
	sheets := Sheets()
	s := sheets[slices.IndexFunc(sheets, func(s plugin.Sheet) bool { return s.Name == name })]
	values, err := s.Read(row)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]any{}
	for i, c := range s.Columns {
		named[c.Name] = values[i]
	}
	return named
}

func TestSheetsRefuseCorruptRows(t *testing.T) {
	for _, s := range Sheets() {
		if s.Name == "" {
			continue
		}
		row := sheetRows()[s.Name]
		row.Value = row.Value[:len(row.Value)-1]
		if values, err := s.Read(row); err == nil {
			t.Errorf("%s reads a row that was cut: %v", s.Name, values)
		}
		row.Key, row.Value = nil, bytes.Repeat([]byte{0xff}, 9)
		if _, err := s.Read(row); err == nil {
			t.Errorf("%s reads rubbish", s.Name)
		}
	}
}

func BenchmarkSheets(b *testing.B) {
	rows := sheetRows()
	for _, s := range Sheets() {
		if s.Name == "" {
			continue
		}
		b.Run(s.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Read(rows[s.Name])
			}
		})
	}
}
