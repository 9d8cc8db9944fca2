package spool

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

func sampleEntry() *Entry {
	var ids message.Generator
	received := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	expires := 90 * time.Second
	m := &message.Message{
		ID: ids.New(received), PublicID: message.NewPublicID(), Received: received,
		From: message.Address{User: "1001", Host: "example.com"}, DisplayName: "Alice", Recipient: message.Address{User: "+4930123"},
		ContentType: "text/plain;charset=utf-8", Class: message.Text, Body: []byte("grüß Gott"),
		Headers: []message.Header{{Name: "Subject", Value: "x"}}, Expires: &expires, Hops: 69, Transport: "sip", Peer: "127.0.0.1:5060",
		Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	return &Entry{
		Message: m, Account: "1002", Key: "k", Expiry: received.Add(time.Hour),
		Plan: plugin.Plan{
			Service: "onnet", Revision: "abc", Transports: []string{"sip"}, Labels: map[string]string{"a": "1", "b": "2"},
			Charging: plugin.PlanCharging{When: plugin.OnHandover},
			Retry:    plugin.PlanRetry{Backoff: []time.Duration{time.Second, time.Minute}, Unknown: plugin.UnknownRetry},
			Text:     plugin.PlanText{Transliterate: plugin.TransliterateConfigured},
			Forking:  plugin.ForkParallel, Devices: plugin.AnyDevice,
		},
		Record: &plugin.Record{Key: m.ID, Payer: "1001", Units: 2, Destination: "MSGN", From: m.From, Recipient: m.Recipient,
			Service: "onnet", Received: received, Reserved: []byte{1, 2}},
		Routes: []plugin.Route{{Transport: "vendor", Address: "a"}},
	}
}

// plannedEntry has all of a plan that is kept.
func plannedEntry() *Entry {
	e := sampleEntry()
	e.Plan.Charging.When = plugin.OnDelivery
	e.Plan.Retry.Attempts, e.Plan.Retry.Reasons = 5, []message.Reason{message.Busy, message.NoAnswer}
	e.Plan.Retry.Unknown = plugin.UnknownFail
	e.Plan.Fallback = plugin.PlanFallback{
		Transports: []string{"backup", "other"}, Reasons: []message.Reason{message.Undelivered}, Sender: message.Address{User: "100", Host: "sms.example.com"},
	}
	e.Plan.Rewrite = plugin.PlanRewrite{Sender: message.Address{User: "200", Host: "example.com"}, Recipient: message.Address{User: "+44"}}
	return e
}

// scheduledEntry has also what came with SMS.
func scheduledEntry() *Entry {
	e := plannedEntry()
	e.Submitter, e.Message.Number = "acme", "+447700900001"
	e.Message.NotBefore, e.Message.Missing = e.Message.Received.Add(time.Hour), 3
	e.Message.Report = message.ReportFailure
	e.Message.Receipt = &message.Receipt{
		PublicID: "AAECAwQFBgcICQoLDA0ODw", State: message.ReceiptFailed, Reason: message.Gone, Submitted: e.Message.Received, Done: e.Expiry,
	}
	e.Plan.Text = plugin.PlanText{Alphabets: []plugin.Alphabet{plugin.GSM7, plugin.UCS2}, Transliterate: plugin.TransliterateAlways}
	e.Message.Report = message.ReportFailure
	e.Message.Receipt = &message.Receipt{
		PublicID: "AAECAwQFBgcICQoLDA0ODw", State: message.ReceiptFailed, Reason: message.Gone, Submitted: e.Message.Received, Done: e.Expiry,
	}
	return e
}

// copiedEntry has also what is for several devices.
func copiedEntry() *Entry {
	e := scheduledEntry()
	e.Plan.Forking, e.Plan.Devices = plugin.ForkSequential, plugin.AllDevices
	e.Copy = Copy{Device: "<urn:uuid:1>", Of: message.ID{1, 2, 3}}
	return e
}

func TestEntrySurvives(t *testing.T) {
	for _, want := range []*Entry{sampleEntry(), plannedEntry(), scheduledEntry(), copiedEntry()} {
		got, err := decodeEntry(encodeEntry(want))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestEveryTruncationIsNoticed(t *testing.T) {
	row := encodeEntry(copiedEntry())
	for n := range row {
		if _, err := decodeEntry(row[:n]); err == nil {
			t.Fatalf("a row cut after %d of %d octets is taken", n, len(row))
		}
	}
	if _, err := decodeEntry(append(row, 0)); err == nil {
		t.Error("an octet too many is taken")
	}
	row[0]++
	if _, err := decodeEntry(row); err == nil {
		t.Error("a format from the future is taken")
	}
}

func sampleState() State {
	return State{Attempts: 3, Quarantined: message.Unbuildable, HandedOver: true, Deliveries: []Delivery{
		{Device: "d", Transport: "sip", Refused: message.Declined}, {Transport: "smpp", Parts: []Part{{PeerID: "42"}, {PeerID: "43", Reported: true}}, Delivered: true, Unwrapped: true},
		{Transport: "other", Unknown: true, Progress: []byte{1, 0}},
	}, Fallback: true, Earlier: 2, Hurried: true}
}

func TestStateSurvives(t *testing.T) {
	want := sampleState()
	got, err := decodeState(encodeState(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// TestLoadNear: what lies between isn't returned, and a row beside the first that
// can't be read doesn't stand in its way.
func TestLoadNear(t *testing.T) {
	storage := memory.Open(memory.NewDisk())
	fence, err := storage.Acquire(t.Context(), "node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var changes []plugin.Change
	var all []message.ID
	var ids message.Generator
	for range 5 {
		e := sampleEntry()
		e.Message.ID = ids.New(e.Message.Received)
		all = append(all, e.Message.ID)
		changes = append(changes, plugin.Change{Table: tableMessages, Key: e.Message.ID[:], Value: encodeEntry(e)})
	}
	changes[2].Value = []byte("rubbish")
	if err := storage.Apply(t.Context(), fence, changes); err != nil {
		t.Fatal(err)
	}
	s := New(storage, nil)
	got, err := s.LoadNear(t.Context(), []message.ID{all[0], all[2], all[3], all[4]})
	if err != nil || got[all[0]] == nil || got[all[1]] != nil || got[all[2]] != nil || got[all[3]] == nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.LoadNear(t.Context(), []message.ID{all[2], all[3]}); err == nil {
		t.Error("a row that can't be read is no error")
	}
	absent := ids.New(time.Now())
	if e, err := s.Load(t.Context(), absent); e != nil || err != nil {
		t.Errorf("a message that isn't there: %v, %v", e, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encodeEntry(sampleEntry()))
	f.Add(encodeEntry(plannedEntry()))
	f.Add(encodeEntry(copiedEntry()))
	f.Add(Device{"<urn:uuid:1>", "sip", "a", time.Unix(1, 0)}.row().Value)
	window := Window{Key: "k", Began: time.Unix(1, 0), Per: time.Hour, Count: 3}
	f.Add(window.row().Value)
	summary := sampleSummary()
	f.Add(summary.Row().Value)
	f.Add(encodeState(State{Attempts: 1, Deliveries: []Delivery{{Device: "d"}}}))
	f.Add(encodeBinding(plugin.Binding{Account: "a", Contact: "sip:a@b", Expires: time.Unix(1, 0)}))
	f.Fuzz(func(t *testing.T, row []byte) {
		if e, err := decodeEntry(row); err == nil {
			if again, err := decodeEntry(encodeEntry(e)); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("an entry changes when it is written again: %v", err)
			}
		}
		if s, err := decodeSummary(make([]byte, len(message.ID{})), row); err == nil {
			again := s.Row()
			if _, err := decodeSummary(again.Key, again.Value); err != nil {
				t.Errorf("a record can't be read when it is written again: %v", err)
			}
		}
		if w, err := decodeWindow(make([]byte, len(Digest{})), row); err == nil {
			row := w.row()
			if again, err := decodeWindow(row.Key, row.Value); err != nil || again != w {
				t.Errorf("a window changes when it is written again: %v", err)
			}
		}
		if d, err := decodeDevice(row); err == nil {
			if again, err := decodeDevice(d.row().Value); err != nil || again != d {
				t.Errorf("a device changes when it is written again: %v", err)
			}
		}
		decodeState(row)
		decodeBinding(row)
		if len(row) >= 24 {
			decodeSeen(row[:24], row[24:])
		}
	})
}

// TestBindingOfEarlierFormats: the first had no reg-id of its own, the second no
// window, the third no push.
func TestBindingOfEarlierFormats(t *testing.T) {
	want := plugin.Binding{
		Account: "a", AOR: message.Address{User: "a", Host: "b"}, Transport: "sip", Contact: "sip:a@b", Flow: "udp;x",
		Device: "<urn:uuid:1>", Q: 1000, Expires: time.Unix(1, 0).UTC(), CallID: "c", CSeq: 7,
	}
	row := encodeBinding(want)
	third := bytes.Clone(row[:len(row)-4])
	third[0] = 3
	second := bytes.Clone(third[:len(third)-1])
	second[0] = 2
	at := bytes.Index(second, []byte(want.Device)) + len(want.Device) // the reg-id follows: one octet, its length
	first := append(bytes.Clone(second[:at]), second[at+1:]...)
	first[0] = 1
	for _, b := range [][]byte{row, third, second, first} {
		if got, err := decodeBinding(b); err != nil || got != want {
			t.Errorf("%x: %+v, %v\nwant %+v", b, got, err, want)
		}
	}
	want.RegID = "1"
	for _, step := range []struct {
		file   string
		change func()
	}{
		{"binding-2.hex", func() { want.RegID = "1" }},
		{"binding-3.hex", func() { want.Window = 50 }},
		{"binding-4.hex", func() { want.Push, want.Asleep = plugin.Push{Provider: "fcm", Param: "app", ID: "token"}, true }},
	} {
		step.change()
		if got, err := decodeBinding(golden(t, step.file)[0]); err != nil || got != want {
			t.Errorf("%s: %+v, %v\nwant %+v", step.file, got, err, want)
		}
	}
	if got := encodeBinding(want); !bytes.Equal(got, golden(t, "binding-4.hex")[0]) {
		t.Errorf("it is written as %x", got)
	}
}
