package spool

import (
	"strconv"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func TestSeenForTenMinutes(t *testing.T) {
	table := NewSeenTable(nil)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Seen{Digest: DigestKey("a"), ID: message.ID{1}, PublicID: message.NewPublicID(), At: now,
		State: plugin.OutcomeFailed, Reason: message.StorageDown}
	table.Remember(now, want)
	for _, after := range []time.Duration{0, time.Minute, SeenFor} {
		got, ok := table.Lookup(now.Add(after), want.Digest)
		if !ok || got.PublicID != want.PublicID || got.State != want.State || got.Reason != want.Reason {
			t.Errorf("after %s: %+v, %t", after, got, ok)
		}
	}
	if _, ok := table.Lookup(now.Add(SeenFor+2*seenGeneration), want.Digest); ok {
		t.Error("it is never forgotten")
	}
	table.Remember(now.Add(time.Hour), want)
	if _, ok := table.Lookup(now.Add(time.Hour), want.Digest); ok {
		t.Error("an old submission is remembered anew")
	}
}

func TestSeenRowSurvives(t *testing.T) {
	noted := time.Unix(1_800_000_100, 0)
	want := Seen{Digest: DigestKey("a"), ID: firstID(noted.Add(-time.Hour)), PublicID: message.NewPublicID(), At: noted,
		Noted: noted, State: plugin.OutcomeFailed, Reason: message.Gone}
	row := want.row()
	got, err := decodeSeen(row.Key, row.Value)
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func BenchmarkSeen(b *testing.B) {
	table := NewSeenTable(nil)
	now := time.Now()
	for i := range b.N {
		s := Seen{Digest: DigestKey(strconv.Itoa(i)), At: now}
		table.Lookup(now, s.Digest)
		table.Remember(now, s)
	}
}
