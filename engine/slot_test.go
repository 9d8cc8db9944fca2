package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// silent is a transport whose peer answers when it is told to.
type silent struct{ answer chan struct{} }

func (s silent) Serve(context.Context, plugin.Gate) error { return nil }

func (s silent) Send(ctx context.Context, _ *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	select {
	case <-s.answer:
		return plugin.Receipt{Final: true}, nil
	case <-ctx.Done():
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "%w", ctx.Err())
	}
}

func doorOf(t silent) *door {
	return &door{transport: t, instance: Instance{Name: "sip"}, wrong: func(err error) error { return err }, ready: make(chan struct{}), ended: make(chan struct{})}
}

func TestSlotHoldsWhatIsSentDuringAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlot(doorOf(silent{make(chan struct{})}), func() bool { return true })
		s.vacate()
		sent := make(chan error, 1)
		go func() {
			_, err := s.Send(t.Context(), nil, plugin.Route{})
			sent <- err
		}()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Send(impatient, nil, plugin.Route{})
		if f, ok := errors.AsType[*message.Failure](err); !ok || !f.Temporary || f.Reason != message.Unavailable {
			t.Errorf("a send whose time is over: %v", err)
		}
		after := silent{make(chan struct{})}
		close(after.answer)
		s.fill(doorOf(after))
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if n := s.sends.Load(); n != 0 {
			t.Errorf("%d sends are still counted", n)
		}
	})
}

func TestSlotWaitsForWhatIsBeingSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := silent{make(chan struct{})}
		s := newSlot(doorOf(before), func() bool { return true })
		go s.Send(t.Context(), nil, plugin.Route{})
		synctest.Wait()
		s.vacate()

		begin := time.Now()
		s.drain(5 * time.Second)
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("gave up after %v", waited)
		}
		close(before.answer)
		synctest.Wait()
		begin = time.Now()
		s.drain(5 * time.Second)
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %v for nothing", waited)
		}
	})
}

func TestDoorThatDoesNotOpenOrClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := doorOf(silent{})
		ctx, cancel := context.WithTimeout(t.Context(), readyWait)
		defer cancel()
		if err := d.await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("open: %v", err)
		}
		d.stop = func() {}
		if err := d.end(); err == nil {
			t.Error("a door that doesn't close passed")
		}
	})
}

// hanging is a storage that doesn't come back from a write.
type hanging struct {
	plugin.Storage
	entered, release chan struct{}
}

func (h hanging) Apply(context.Context, plugin.Fence, []plugin.Change) error {
	close(h.entered)
	<-h.release
	return nil
}

func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hanging{entered: make(chan struct{}), release: make(chan struct{})}
		e := &Engine{storage: &watchedStorage{Storage: h}}
		alive := func(when string, want bool) {
			t.Helper()
			if err := e.Alive(); (err == nil) != want {
				t.Errorf("%s: %v", when, err)
			}
		}
		alive("idle", true)
		written := make(chan error, 1)
		go func() { written <- e.storage.Apply(t.Context(), 1, nil) }()
		<-h.entered
		time.Sleep(applyStuck)
		alive("slow", true)
		time.Sleep(time.Second)
		alive("stuck", false)
		close(h.release)
		if err := <-written; err != nil {
			t.Error(err)
		}
		alive("after all", true)
	})
}

// A pipeline that hangs for ever is told of, again and again, and leaves one
// goroutine behind.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulse()
		if err := p.feel(func() {}); err != nil {
			t.Error(err)
		}
		looks, release := 0, make(chan struct{})
		hang := func() {
			looks++
			<-release
		}
		for range 3 {
			began := time.Now()
			if err := p.feel(hang); err == nil || time.Since(began) != answerWait {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		close(release)
		if err := p.feel(func() {}); err != nil || looks != 1 {
			t.Errorf("after all: %v, %d looks", err, looks)
		}
	})
}

// A term that can't begin again, because the lease is lost or the node stops,
// holds no reload up that wants to go back.
func TestNobodyBeginsAgain(t *testing.T) {
	p := newPause()
	close(p.gone)
	if err := (&reload{pause: p}).beginTerm(); err != nil {
		t.Error(err)
	}
}

// What may not be sent any more waits for the end of the term, and no peer hears
// of it.
func TestSlotSendsNothingWithoutTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := silent{make(chan struct{})}
		close(peer.answer)
		s := newSlot(doorOf(peer), func() bool { return false })
		term, end := context.WithCancel(t.Context())
		sent := make(chan error, 1)
		go func() {
			_, err := s.Send(term, nil, plugin.Route{})
			sent <- err
		}()
		synctest.Wait()
		if len(sent) > 0 {
			t.Error("it doesn't wait")
		}
		end()
		if f, ok := errors.AsType[*message.Failure](<-sent); !ok || !f.Temporary || f.Reason != message.Standby {
			t.Errorf("refused with %v", f)
		}
		if n := s.sends.Load(); n != 0 {
			t.Errorf("%d sends are still counted", n)
		}
	})
}
