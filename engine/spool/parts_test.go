package spool

import (
	"log/slog"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

func samplePart() PartRow {
	m := *sampleEntry().Message
	m.ID, m.PublicID = message.ID{1, 2, 3, 15: 4}, "AAECAwQFBgcICQoLDA0ODw"
	m.Number, m.NotBefore = "+447700900001", m.Received.Add(time.Hour)
	m.Report = message.ReportEnd
	return PartRow{
		Arrival: plugin.Arrival{
			Message: &m,
			Account: plugin.Account{ID: "acme", Identities: []message.Address{m.From}, Attributes: map[string]string{"tier": "gold", "a": ""}},
			Part:    &plugin.Part{Reference: 4711, Total: 255, Number: 200, Wait: time.Minute},
		},
		Began: m.Received.Add(-time.Second), Until: m.Received.Add(59 * time.Second),
	}
}

func TestPartSurvives(t *testing.T) {
	want := samplePart()
	row := want.row()
	got, err := decodePart(row.Key, row.Value)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %+v, %v\nwant %+v %+v", got, got.Arrival.Message, err, want, want.Arrival.Message)
	}
	for n := range row.Value {
		if _, err := decodePart(row.Key, row.Value[:n]); err == nil {
			t.Fatalf("a row cut after %d of %d octets is taken", n, len(row.Value))
		}
	}
	for _, key := range [][]byte{nil, row.Key[1:], append(slices.Clone(row.Key[:16]), 0)} {
		if _, err := decodePart(key, row.Value); err == nil {
			t.Errorf("key %x is taken", key)
		}
	}
}

// TestEarlierPartsAreRead: testdata/part-1.hex has the key and the value of a row
// of version 1.
func TestEarlierPartsAreRead(t *testing.T) {
	rows := golden(t, "part-1.hex")
	got, err := decodePart(rows[0], rows[1])
	if want := samplePart(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// TestPartsBecomeAMessage in one transaction, or end with its record.
func TestPartsBecomeAMessage(t *testing.T) {
	for name, end := range map[string]func(*Spool, *Entry, *Joined){
		"messages": func(s *Spool, e *Entry, j *Joined) { s.Put(e, With{Parts: j}, func(error) {}) },
		"history": func(s *Spool, e *Entry, j *Joined) {
			summary := e.Summary()
			summary.State, summary.Ended = StateFailed, e.Message.Received
			s.EndParts(&summary, nil, j, nil, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := memory.Open(memory.NewDisk())
				fence, err := storage.Acquire(t.Context(), "node", time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				c := NewCommitter(storage, fence, slog.New(slog.DiscardHandler))
				go c.Run(t.Context())
				s := New(storage, c)
				p := samplePart()
				if err := s.PutPart(&p, func(error) {}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				var got []PartRow
				if err := s.Parts(t.Context(), func(p PartRow) { got = append(got, p) }); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], p) {
					t.Fatalf("%+v, %v", got, err)
				}
				e := sampleEntry()
				e.Message.ID = p.Arrival.Message.ID
				end(s, e, &Joined{ID: e.Message.ID, Numbers: []uint8{200}, Seen: []Seen{{Digest: DigestKey("part"), Noted: time.Now()}}})
				synctest.Wait()
				for table, want := range map[string]int{tableParts: 0, tableSeen: 1, name: 1} {
					if rows, err := storage.Scan(t.Context(), table, nil, nil, 10); err != nil || len(rows) != want {
						t.Errorf("%d rows in %s, %v, want %d", len(rows), table, err, want)
					}
				}
			})
		})
	}
}

// TestPartOfTooMuch is refused for good: no storage could take it.
func TestPartOfTooMuch(t *testing.T) {
	p := samplePart()
	p.Arrival.Message.Body = make([]byte, plugin.MaxValue)
	if f := message.AsFailure((&Spool{}).PutPart(&p, nil)); f.Reason != message.TooLarge || f.Temporary {
		t.Errorf("%v", f)
	}
}
