package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// backlog is what a node finds when it takes over.
type backlog struct{ messages, records, bindings int }

// recipients of a backlog: each has as many messages.
const backlogRecipients = 10_000

// writes runs a committer on a storage until the returned function is called.
func writes(t testing.TB, storage plugin.Storage) (*spool.Committer, func()) {
	t.Helper()
	fence, err := storage.Acquire(t.Context(), "solo", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	committer := spool.NewCommitter(storage, fence, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := committer.Run(ctx); err != nil {
			t.Errorf("the committer ends with %v", err)
		}
	})
	return committer, func() {
		cancel()
		running.Wait()
	}
}

// fill writes a backlog. Those who have bindings have no messages.
func (b backlog) fill(t testing.TB, storage plugin.Storage) {
	t.Helper()
	committer, stop := writes(t, storage)
	defer stop()
	sp, locations := spool.New(storage, committer), spool.NewLocations(storage, committer)
	var ids message.Generator
	var waiting sync.WaitGroup
	now := time.Now()
	for i := range b.messages {
		m := &message.Message{
			ID: ids.New(now), PublicID: message.NewPublicID(), Received: now, From: address(fmt.Sprint("sender", i%100)),
			Recipient: address(fmt.Sprint("user", i%backlogRecipients)), ContentType: "text/plain", Body: make([]byte, 160),
			Transport: "door", Peer: "192.0.2.1:5060",
		}
		e := &spool.Entry{
			Message: m, Account: m.Recipient.User, Key: fmt.Sprint("waiting ", i), Expiry: now.Add(time.Hour),
			Plan:   plugin.Plan{Service: "onnet", Revision: "r", Transports: []string{"door"}, Retry: plugin.PlanRetry{Backoff: []time.Duration{time.Second}}},
			Record: &plugin.Record{Key: m.ID, Payer: m.From.User, Units: 1, From: m.From, Recipient: m.Recipient, Service: "onnet", Received: now},
		}
		waiting.Add(1)
		err := sp.Put(e, spool.With{}, func(err error) {
			waiting.Done()
			if err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range b.records {
		sp.Record(&spool.Summary{
			ID: ids.New(now), PublicID: message.NewPublicID(), State: spool.StateDelivered, From: address("alice"), To: address("bob"),
			Type: "text/plain", Received: now, Expiry: now, Ended: now, Service: "onnet", Transport: "door", Attempts: 1,
			Submission: spool.DigestKey(fmt.Sprint("ended ", i)),
			Deliveries: []spool.DeliverySummary{{Transport: "door", Device: "<urn:uuid:1>", State: spool.StateDelivered}},
		}, nil)
	}
	for i := range b.bindings {
		name := fmt.Sprint("there", i)
		r := plugin.Registration{Account: account(name), AOR: address(name), CallID: name, CSeq: 1, Bindings: []plugin.Binding{
			{Contact: "sip:phone@192.0.2.1", Device: "<urn:uuid:1>", Expires: now.Add(time.Hour)},
		}}
		waiting.Add(1)
		if _, err := locations.Register("door", r, now, func(error) { waiting.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	waiting.Wait()
}

// takeOver rebuilds a node's memory.
func takeOver(t testing.TB, storage plugin.Storage) (*pipeline.Pipeline, *spool.SeenTable) {
	t.Helper()
	committer, stop := writes(t, storage)
	t.Cleanup(stop)
	door, log := newDoor(), slog.New(slog.DiscardHandler)
	seen := spool.NewSeenTable(storage)
	p := pipeline.New(t.Context(), pipeline.Parts{
		Policy: charged(), Accounts: testAccounts{}, Tables: spool.NewTables("test", storage, committer), Log: log,
		Spool: spool.New(storage, committer), Seen: seen, Locations: spool.NewLocations(storage, committer),
		Doors: map[string]pipeline.Door{"door": {Transport: door, Plugin: "door", Protocol: "door", Registrar: true}},
	})
	if err := seen.CatchUp(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := p.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p, seen
}

// TestRestore: all of a big backlog is there after a take-over.
func TestRestore(t *testing.T) {
	storage := memory.Open(memory.NewDisk())
	b := backlog{messages: 100_000, records: 10_000, bindings: 1000}
	b.fill(t, storage)
	p, seen := takeOver(t, storage)
	s := p.Snapshot()
	if s["waiting"] != int64(b.messages) || s["bindings"] != int64(b.bindings) {
		t.Errorf("%d messages wait and %d bindings are there, want %+v", s["waiting"], s["bindings"], b)
	}
	for what, n := range map[string]int{"waiting": b.messages, "ended": b.records} {
		for i := range n {
			if _, ok := seen.Lookup(time.Now(), spool.DigestKey(fmt.Sprint(what, " ", i))); !ok {
				t.Fatalf("the submission of message %d that is %s isn't known", i, what)
			}
		}
	}
}

// BenchmarkRestore is the take-over of a node that hasn't followed.
func BenchmarkRestore(b *testing.B) {
	for _, s := range stores() {
		b.Run(s.name, func(b *testing.B) {
			storage := s.prepare(b)(b).open(b)
			b.Cleanup(func() { storage.Close() })
			load := backlog{messages: 100_000, records: 100_000, bindings: 1000}
			load.fill(b, storage)
			b.ReportAllocs()
			for b.Loop() {
				p, _ := takeOver(b, storage)
				if n := p.Snapshot()["waiting"]; n != int64(load.messages) {
					b.Fatalf("%d messages", n)
				}
			}
		})
	}
}

// remote is a storage that takes its time and counts the scans of a table.
type remote struct {
	plugin.Storage
	apply, scan time.Duration
	mu          sync.Mutex
	scans       map[string]int
	rows        int
}

func (s *remote) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	time.Sleep(s.apply)
	return s.Storage.Apply(ctx, f, changes)
}

func (s *remote) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	time.Sleep(s.scan)
	found, err := s.Storage.Scan(ctx, table, from, to, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans[table]++
	s.rows += len(found)
	return found, err
}

func (s *remote) scansOf(table string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.scans[table]
	s.scans[table] = 0
	return n
}

func (s *remote) rowsRead() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.rows
	s.rows = 0
	return n
}

// comesBack lets bob come back, for whom each of some senders has left messages
// behind so many others that none of them is kept in memory. Behind each of them
// are some for others, who stay away.
func comesBack(t testing.TB, storage *remote, senders, each, between int) *solo {
	t.Helper()
	committer, stop := writes(t, storage.Storage)
	sp := spool.New(storage.Storage, committer)
	var ids message.Generator
	var waiting sync.WaitGroup
	now := time.Now()
	put := func(from, to, body string) {
		m := &message.Message{
			ID: ids.New(now), PublicID: message.NewPublicID(), Received: now, From: address(from), Recipient: address(to),
			ContentType: "text/plain", Body: []byte(body), Transport: "door",
		}
		waiting.Add(1)
		err := sp.Put(&spool.Entry{Message: m, Account: to, Expiry: now.Add(time.Hour), Plan: plugin.Plan{
			Service: "test", Transports: []string{"door"}, Retry: plugin.PlanRetry{Backoff: []time.Duration{time.Second}},
		}}, spool.With{}, func(error) { waiting.Done() })
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 80 {
		put("others", fmt.Sprint("other", i), string(make([]byte, 256<<10)))
	}
	for i := range each {
		for from := range senders {
			put(fmt.Sprint("sender", from), "bob", fmt.Sprint(from, " ", i))
			for other := range between {
				put("others", fmt.Sprint("other", other), "")
			}
		}
	}
	waiting.Wait()
	stop()
	s := alone(t, storage, charged(), nil)
	if n := storage.scansOf("messages"); n > 20 {
		t.Errorf("%d scans for a restore", n)
	}
	storage.rowsRead()
	if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is delivered", func() bool { return len(s.door.bodies()) == senders*each })
	return s
}

// TestBacklogIsReadInPages: a recipient who comes back costs no scan for each
// message, nor does a lane that stays asleep after a restore.
func TestBacklogIsReadInPages(t *testing.T) {
	for senders, each := range map[int]int{1: 320, 16: 100, 1000: 1} {
		t.Run(fmt.Sprint(senders, " senders"), func(t *testing.T) {
			storage := &remote{Storage: memory.Open(memory.NewDisk()), scans: map[string]int{}}
			s := comesBack(t, storage, senders, each, 0)
			next := make([]int, senders)
			for _, body := range s.door.bodies() {
				var from, i int
				fmt.Sscan(body, &from, &i)
				if i != next[from] {
					t.Fatalf("message %d of sender %d comes when %d is due", i, from, next[from])
				}
				next[from]++
			}
			// How many there are depends on who runs when: a scan for each message
			// is what must not be.
			if scans := storage.scansOf("messages"); scans > 4*senders*each/5 {
				t.Errorf("%d scans for %d messages", scans, senders*each)
			}
		})
	}
}

// TestBacklogAmongOthers: where what waits for one recipient lies far apart, what
// lies in between isn't read.
func TestBacklogAmongOthers(t *testing.T) {
	storage := &remote{Storage: memory.Open(memory.NewDisk()), scans: map[string]int{}}
	const messages = 200
	comesBack(t, storage, 1, messages, 20)
	if n := storage.rowsRead(); n > 3*messages {
		t.Errorf("%d rows were read for %d messages", n, messages)
	}
}

// BenchmarkComesBack shows what a slow storage does to a backlog: an Apply takes
// 5 ms and a Scan 1 ms.
func BenchmarkComesBack(b *testing.B) {
	for _, senders := range []int{1, 10} {
		b.Run(fmt.Sprint(senders, " senders"), func(b *testing.B) {
			for b.Loop() {
				storage := &remote{Storage: memory.Open(memory.NewDisk()), apply: 5 * time.Millisecond, scan: time.Millisecond, scans: map[string]int{}}
				comesBack(b, storage, senders, 2000/senders, 0)
				b.ReportMetric(float64(storage.scansOf("messages"))/2000, "scans/message")
			}
		})
	}
}
