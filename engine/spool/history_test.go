package spool

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func sampleSummary() Summary {
	s := sampleEntry().Summary()
	s.State, s.Reason, s.Attempts = StateFailed, message.Declined, 2
	s.Ended = s.Received.Add(90 * time.Second)
	s.Submission = DigestKey("the submission's key")
	s.Deliveries = []DeliverySummary{
		{Transport: "sip", Device: "<urn:uuid:00000000-0000-1000-8000-000a95a0e128>", State: StateFailed, Reason: message.Declined},
		{Transport: "sip", State: StateHandedOver, PeerIDs: []string{"4711", "4712"}},
	}
	return s
}

func TestSummarySurvives(t *testing.T) {
	want := sampleSummary()
	want.Account, want.Missing = "acme", 3
	want.Device, want.CopyOf = "<urn:uuid:1>", message.ID{1, 2, 3}
	row := want.Row()
	got, err := decodeSummary(row.Key, row.Value)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for n := range row.Value {
		if _, err := decodeSummary(row.Key, row.Value[:n]); err == nil {
			t.Fatalf("a row cut after %d of %d octets is taken", n, len(row.Value))
		}
	}
	if len(row.Value) > 300 {
		t.Errorf("%d octets for one message", len(row.Value))
	}
}

// TestRecordTellsOfItsSubmission: a repeat is known by it after a restart.
func TestRecordTellsOfItsSubmission(t *testing.T) {
	for state, want := range map[StateName]Seen{
		StateDelivered:  {State: plugin.OutcomeDelivered},
		StateHandedOver: {State: plugin.OutcomeDelivered},
		StateDiscarded:  {State: plugin.OutcomeWaiting},
		StateFailed:     {State: plugin.OutcomeFailed, Reason: message.Declined},
	} {
		s := sampleSummary()
		s.State = state
		row := s.Row()
		got, err := decodeSubmission(row.Key, row.Value, func(Digest) bool { return false })
		want.Digest, want.ID, want.PublicID, want.At, want.Noted = s.Submission, s.ID, s.PublicID, s.Received, s.Ended
		if got != want || err != nil {
			t.Errorf("%s: %+v, %v\nwant %+v", state, got, err, want)
		}
	}
}

// TestSummaryTakesOneAllocation: it is written for each message.
func TestSummaryTakesOneAllocation(t *testing.T) {
	s := sampleSummary()
	if n := testing.AllocsPerRun(100, func() { s.Row() }); n != 1 {
		t.Errorf("%v allocations", n)
	}
	s.From.User, s.Labels["long"] = strings.Repeat("u", 200), strings.Repeat("l", 1000)
	if row := s.Row(); cap(row.Value) != s.rowSize() {
		t.Error("a row outgrows its estimate")
	}
}

func BenchmarkSummaryRow(b *testing.B) {
	s := sampleSummary()
	b.ReportAllocs()
	for b.Loop() {
		s.Row()
	}
}

// golden reads the rows, one a line, that an earlier version has written.
func golden(t *testing.T, name string) (rows [][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		row, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// TestEarlierEntriesAreRead: entry-1.hex was written before messages had a trace,
// entry-2.hex before retries could be counted, entry-3.hex before messages could be
// scheduled, entry-4.hex before there were copies.
func TestEarlierEntriesAreRead(t *testing.T) {
	for name, want := range map[string]*Entry{"entry-1.hex": sampleEntry(), "entry-2.hex": sampleEntry(), "entry-3.hex": plannedEntry(), "entry-4.hex": scheduledEntry()} {
		got, err := decodeEntry(golden(t, name)[0])
		if err != nil {
			t.Fatal(name, err)
		}
		if name == "entry-1.hex" {
			want.Message.Trace = ""
		}
		want.Message.ID, want.Message.PublicID = got.Message.ID, got.Message.PublicID
		want.Record.Key = got.Message.ID
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
		}
		if got.Message.ID.Time().UnixMilli() != want.Message.Received.UnixMilli() && name != "entry-1.hex" || len(got.Message.PublicID) != 22 {
			t.Errorf("%s: id %s, %q", name, got.Message.ID, got.Message.PublicID)
		}
	}
}

// TestEarlierStatesAreRead: state-1.hex was written before there was a fallback,
// state-2.hex before messages went in parts, state-3.hex before they were unwrapped.
func TestEarlierStatesAreRead(t *testing.T) {
	want := State{Attempts: 3, Quarantined: message.Unbuildable, HandedOver: true, Deliveries: []Delivery{
		{Device: "d", Transport: "sip", Refused: message.Declined}, {Transport: "smpp", Parts: []Part{{PeerID: "42"}}, Delivered: true},
	}}
	for _, name := range []string{"state-1.hex", "state-2.hex"} {
		got, err := decodeState(golden(t, name)[0])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
		}
		want.Fallback, want.Earlier = true, 2
	}
	want = sampleState()
	want.Deliveries[1].Unwrapped = false
	if got, err := decodeState(golden(t, "state-3.hex")[0]); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// TestEarlierRecordsAreRead: history-1.hex was written before addresses were
// rewritten, history-2.hex before the account was known,
// history-3.hex before there were copies.
func TestEarlierRecordsAreRead(t *testing.T) {
	want := sampleSummary()
	want.Deliveries[1].PeerIDs = nil
	for _, name := range []string{"history-1.hex", "history-2.hex", "history-3.hex"} {
		rows := golden(t, name)
		got, err := decodeSummary(rows[0], rows[1])
		want.ID, want.PublicID = got.ID, got.PublicID
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v, %v\nwant %+v", name, got, err, want)
		}
		seen, err := decodeSubmission(rows[0], rows[1], func(Digest) bool { return false })
		if err != nil || seen.Digest != want.Submission || seen.Reason != want.Reason {
			t.Errorf("%s: of its submission: %+v, %v", name, seen, err)
		}
		want.SentAs, want.OriginalTo = message.Address{User: "100"}, message.Address{User: "0123", Host: "example.com"}
		if name == "history-2.hex" {
			want = sampleSummary()
		}
	}
}

// TestSummaryShowsBothAddresses where they were rewritten.
func TestSummaryShowsBothAddresses(t *testing.T) {
	e := plannedEntry()
	s := e.Summary()
	if s.From != e.Message.From || s.To != e.Plan.Rewrite.Recipient || s.SentAs != e.Plan.Rewrite.Sender || s.OriginalTo != e.Message.Recipient {
		t.Errorf("%+v", s)
	}
	if s.NoteSender(e, true); s.SentAs != e.Plan.Fallback.Sender {
		t.Errorf("by its fallback it is sent as %s", s.SentAs)
	}
	s.State, s.Ended = StateDelivered, s.Received
	row := s.Row()
	if got, err := decodeSummary(row.Key, row.Value); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, s)
	}
}

// TestOutgoing: the message that was submitted isn't changed.
func TestOutgoing(t *testing.T) {
	e := sampleEntry()
	if e.Outgoing(false) != e.Message || e.Outgoing(true) != e.Message {
		t.Error("it is copied where nothing is rewritten")
	}
	e = plannedEntry()
	before := *e.Message
	for fallback, from := range map[bool]message.Address{false: e.Plan.Rewrite.Sender, true: e.Plan.Fallback.Sender} {
		m := e.Outgoing(fallback)
		if m.From != from || m.DisplayName != "" || m.Recipient != e.Plan.Rewrite.Recipient || string(m.Body) != string(before.Body) {
			t.Errorf("%+v", m)
		}
	}
	if !reflect.DeepEqual(*e.Message, before) {
		t.Errorf("it was changed: %+v", e.Message)
	}
}

func TestIDsOfATime(t *testing.T) {
	var ids message.Generator
	at := time.UnixMilli(1_800_000_000_000)
	before, id := ids.New(at.Add(-time.Millisecond)), ids.New(at)
	first := firstID(at)
	if string(before[:]) >= string(first[:]) || string(id[:]) < string(first[:]) {
		t.Errorf("%s isn't between %s and %s", first, before, id)
	}
}

func TestSeenIsBounded(t *testing.T) {
	m := plugin.NewMetrics()
	table := NewSeenTable(nil)
	table.Measure(m)
	table.max = 100
	now := time.Unix(1_800_000_000, 0).Truncate(seenGeneration)
	for i := range 250 {
		at := now.Add(time.Duration(i) * time.Second) // 120 in a generation
		table.Remember(at, Seen{Digest: DigestKey(fmt.Sprint(i)), At: at})
		if n := table.count(); n > table.max {
			t.Fatalf("%d entries", n)
		}
		if _, ok := table.Lookup(at, DigestKey(fmt.Sprint(i))); !ok {
			t.Fatal("the newest is forgotten")
		}
	}
	var early float64
	for _, s := range m.Series() {
		if s.Name == "seen_forgotten_early_total" {
			early = s.Value()
		}
	}
	if early+float64(table.count()) != 250 {
		t.Errorf("%v were forgotten early and %d are left, of 250", early, table.count())
	}
}

func TestContactsAreBounded(t *testing.T) {
	committer := NewCommitter(newFakeStorage(), 1, slog.New(slog.DiscardHandler))
	l := NewLocations(nil, committer)
	l.Limit(2)
	now := time.Now()
	register := func(contacts ...string) error {
		bob := message.Address{User: "bob", Host: "example.com"}
		r := plugin.Registration{Account: plugin.Account{ID: "bob"}, AOR: bob, CallID: message.NewPublicID()}
		for _, contact := range contacts {
			r.Bindings = append(r.Bindings, plugin.Binding{Contact: contact, Expires: now.Add(time.Hour)})
		}
		_, err := l.Register("sip", r, now, nil)
		return err
	}
	if err := register("a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := register("c"); message.AsFailure(err).Reason != message.LimitReached {
		t.Errorf("a third contact: %v", err)
	}
	if err := register("a"); err != nil {
		t.Errorf("one that is there is refreshed: %v", err)
	}
	if n, _ := l.Count(); n != 2 {
		t.Errorf("%d bindings are counted", n)
	}
	l.Sweep(now.Add(2*time.Hour), 10)
	if n, _ := l.Count(); n != 0 {
		t.Errorf("%d bindings are counted when all have expired", n)
	}
}

func TestCommitterIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := plugin.NewMetrics()
		s := newFakeStorage()
		c, stop, done := run(t, s)
		c.Count(NewMeasures(m))
		c.Move(change("a"), nil)
		synctest.Wait()
		s.set(fmt.Errorf("disk full"), false)
		c.Move(change("b"), nil)
		synctest.Wait()
		got := map[string]float64{}
		for _, series := range m.Series() {
			if series.Kind != plugin.KindHistogram {
				got[series.Name] = series.Value()
				continue
			}
			_, count, _ := series.Buckets()
			got[series.Name] = float64(count)
		}
		want := map[string]float64{"storage_commits_total": 1, "storage_commit_errors_total": 1, "storage_commit_seconds": 2}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		s.set(nil, false)
		stop()
		<-done
	})
}

func TestHistoryIsForgottenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &tableStorage{fakeStorage: newFakeStorage()}
		c, stop, done := run(t, storage.fakeStorage)
		s := New(storage, c)
		var ids message.Generator
		now, names := time.Now(), NewNames([32]byte{})
		for i := range 10 {
			s.Record(&Summary{ID: ids.New(now.Add(time.Duration(i) * time.Minute)), State: StateDelivered, Received: now, Expiry: now, Ended: now}, nil)
		}
		synctest.Wait()
		n, last, err := s.Forget(t.Context(), names, message.ID{}, now.Add(5*time.Minute), 3)
		if n != 3 || err != nil {
			t.Fatal(n, err)
		}
		n, _, err = s.Forget(t.Context(), names, last, now.Add(5*time.Minute), 3)
		if n != 2 || err != nil {
			t.Fatal(n, err)
		}
		left, err := s.History(t.Context(), message.ID{}, message.ID{}, 100)
		if len(left) != 5 || err != nil {
			t.Errorf("%d records are left: %v", len(left), err)
		}
		stop()
		<-done
	})
}
