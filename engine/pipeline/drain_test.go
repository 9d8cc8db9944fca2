package pipeline_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// slow is a storage whose next write waits for the test.
type slow struct {
	plugin.Storage
	next chan struct{} // nil: none waits
}

func (s *slow) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if s.next != nil {
		<-s.next
	}
	return s.Storage.Apply(ctx, f, changes)
}

// TestAcceptedWhileDraining: a message that gets onto the disk when nothing is
// sent any more waits, and whoever waits for its outcome is told so at once.
func TestAcceptedWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &slow{Storage: memory.Open(memory.NewDisk())}
		s := alone(t, storage, charged(), nil)
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		storage.next = make(chan struct{})
		ticket := s.door.submit("alice", "bob", "late")
		synctest.Wait()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.stop()
		}()
		synctest.Wait()
		close(storage.next)
		if _, err := ticket.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), plugin.MaxWithin)
		defer cancel()
		if o := ticket.First(ctx); o.State != plugin.OutcomeWaiting || time.Since(began) > time.Second {
			t.Errorf("%+v after %v", o, time.Since(began))
		}
		<-ended
	})
}

// unread is a storage whose outbox can't be read until its context ends.
type unread struct{ plugin.Storage }

func (u unread) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if table == "outbox" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return u.Storage.Scan(ctx, table, from, to, n)
}

// TestEndInOrderIsSilent: that what is under way is cut off at the end of a term
// is no error.
func TestEndInOrderIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := alone(t, unread{memory.Open(memory.NewDisk())}, charged(), func(p *pipeline.Parts) {
			p.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		synctest.Wait()
		s.stop()
		if log.Len() > 0 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}
