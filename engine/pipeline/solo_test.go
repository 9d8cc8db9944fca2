package pipeline_test

import (
	"context"
	"errors"
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

// solo is a pipeline without an engine around it: no sockets and no lease that
// is renewed, so that it may run in a synctest bubble.
type solo struct {
	*pipeline.Pipeline
	storage plugin.Storage
	door    *testDoor
	stop    func()
}

// soloGate is what its doors get.
type soloGate struct {
	plugin.Gate // for what these tests don't call
	s           *solo
	instance    string
}

func (g soloGate) Submit(a plugin.Arrival) plugin.Ticket { return g.s.Pipeline.Submit(g.instance, a) }

func (g soloGate) Register(ctx context.Context, r plugin.Registration) ([]plugin.Binding, error) {
	return g.s.Pipeline.Register(ctx, g.instance, r)
}

func (g soloGate) Report(ctx context.Context, id string, s plugin.Status) error {
	return g.s.Pipeline.Report(ctx, g.instance, id, s)
}

// alone runs a pipeline on a storage until the test ends. change may change its parts.
func alone(t testing.TB, storage plugin.Storage, policy plugin.Policy, change func(*pipeline.Parts)) *solo {
	t.Helper()
	s, err := tryAlone(t, storage, policy, change)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tryAlone is alone on a storage that may fail.
func tryAlone(t testing.TB, storage plugin.Storage, policy plugin.Policy, change func(*pipeline.Parts)) (*solo, error) {
	t.Helper()
	fence, err := storage.Acquire(t.Context(), "solo", time.Hour)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	committer := spool.NewCommitter(storage, fence, log)
	tables := spool.NewTables("test", storage, committer)
	charging, err := (&testBook{}).open(t.Context(), plugin.Env{Tables: tables}, settings{})
	if err != nil {
		t.Fatal(err)
	}
	s := &solo{storage: storage, door: newDoor()}
	s.door.gate = soloGate{s: s, instance: "door"}
	parts := pipeline.Parts{
		Policy: policy, Accounts: testAccounts{}, Charging: charging, Tables: tables, Log: log,
		Spool: spool.New(storage, committer), Seen: spool.NewSeenTable(storage), Locations: spool.NewLocations(storage, committer),
		Doors: map[string]pipeline.Door{
			"door":  {Transport: s.door, Plugin: "door", Protocol: "door", Registrar: true},
			"trunk": {Transport: s.door.trunk, Plugin: "trunk", Protocol: "trunk"},
		},
	}
	if change != nil {
		change(&parts)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.Pipeline = pipeline.New(ctx, parts)
	if err := errors.Join(parts.Seen.CatchUp(ctx, time.Now()), s.Restore(ctx)); err != nil {
		cancel()
		return nil, err
	}
	var running, committing sync.WaitGroup
	committing.Go(func() { committer.Run(ctx) })
	running.Go(s.Pipeline.Run)
	s.stop = sync.OnceFunc(func() {
		s.Drain(5 * time.Second)
		running.Wait()
		cancel()
		committing.Wait()
	})
	t.Cleanup(s.stop)
	return s, nil
}

// nowhere is a storage that keeps nothing, so that a benchmark measures the
// pipeline.
type nowhere struct{ plugin.Storage }

func (nowhere) Apply(context.Context, plugin.Fence, []plugin.Change) error { return nil }

// BenchmarkPipeline: a message that is charged goes to a phone that takes it at
// once, over a storage that keeps nothing.
func BenchmarkPipeline(b *testing.B) {
	s := alone(b, nowhere{memory.Open(memory.NewDisk())}, charged(), nil)
	const users = 64
	for i := range users {
		if err := s.door.register(b.Context(), fmt.Sprint("user", i), "phone"); err != nil {
			b.Fatal(err)
		}
	}
	s.door.quiet = true
	window := make(chan struct{}, 256)
	var done sync.WaitGroup
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		window <- struct{}{}
		done.Go(func() {
			to := fmt.Sprint("user", i%users)
			a := plugin.Arrival{
				Message: &message.Message{From: address("alice"), Recipient: address(to), ContentType: "text/plain", Body: []byte("hello"), Peer: "192.0.2.1:5060"},
				Account: account("alice"), Key: fmt.Sprint(i),
			}
			ticket := s.door.gate.Submit(a)
			if o, err := first(b, ticket); err != nil || o.State != plugin.OutcomeDelivered {
				b.Error(o, err)
			}
			<-window
		})
	}
	done.Wait()
}
