package joining

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// moody is a storage that a test makes ill: then it takes nothing, or answers that
// it has taken nothing although it has.
type moody struct {
	plugin.Storage
	mu       sync.Mutex
	err      error
	unsure   bool
	attempts int
}

func (m *moody) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempts++
	if m.err == nil || m.unsure {
		if err := m.Storage.Apply(ctx, f, changes); err != nil {
			return err
		}
	}
	return m.err
}

func (m *moody) set(err error, unsure bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.unsure = err, unsure
}

var errIll = errors.New("disk full")

// kit is a Sets on a disk, in a synctest bubble.
type kit struct {
	*Sets
	t     *testing.T
	disk  *memory.Disk
	store *moody
	spool *spool.Spool
	ids   *message.Generator
	stop  func()
}

func start(t *testing.T, disk *memory.Disk) *kit {
	t.Helper()
	k := &kit{t: t, disk: disk, store: &moody{Storage: memory.Open(disk)}, ids: &message.Generator{}}
	fence, err := k.store.Acquire(t.Context(), "node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	committer := spool.NewCommitter(k.store, fence, slog.New(slog.DiscardHandler))
	k.spool = spool.New(k.store, committer)
	seen := spool.NewSeenTable(k.store)
	if err := seen.CatchUp(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	k.Sets = New(k.spool, seen, 1000)
	if err := k.Restore(t.Context(), time.Now(), k.ids.Seen); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		committer.Run(ctx)
		close(ended)
	}()
	k.stop = sync.OnceFunc(func() {
		stop()
		<-ended
	})
	return k
}

// restarted is the next node on the same disk.
func (k *kit) restarted() *kit {
	k.t.Helper()
	k.stop()
	return start(k.t, k.disk)
}

// bubble runs a test with a kit.
func bubble(t *testing.T, f func(t *testing.T, k *kit)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := start(t, memory.NewDisk())
		defer func() { k.stop() }()
		f(t, k)
	})
}

func arrival(reference uint16, total, number uint8, body string) plugin.Arrival {
	from := message.Address{User: "+447700900001"}
	return plugin.Arrival{
		Message: &message.Message{
			From: from, Recipient: message.Address{User: "+447700900002"},
			ContentType: "text/plain;charset=utf-8", Body: []byte(body), Received: time.Now(), Transport: "esme", Peer: "acme",
		},
		Account: plugin.Account{ID: "acme", Identities: []message.Address{from}, Attributes: map[string]string{"tier": "gold"}},
		Part:    &plugin.Part{Reference: reference, Total: total, Number: number, Wait: time.Minute},
	}
}

// said is what a part was told.
type said struct {
	times   int
	answer  plugin.Answer
	failure *message.Failure
}

func (s *said) note(answer plugin.Answer, err error) {
	s.times++
	s.answer, s.failure = answer, nil
	if err != nil {
		s.failure = message.AsFailure(err)
	}
}

func (s *said) accepted() bool { return s.times == 1 && s.failure == nil }

func (s *said) refused(r message.Reason, temporary bool) bool {
	return s.times == 1 && s.failure != nil && s.failure.Reason == r && s.failure.Temporary == temporary
}

// add hands a part in, and waits until the disk has it.
func (k *kit) add(a plugin.Arrival) (*Set, *said) {
	set, s := k.hand(a)
	synctest.Wait()
	return set, s
}

// hand hands a part in.
func (k *kit) hand(a plugin.Arrival) (*Set, *said) {
	s := &said{}
	name := func() (message.ID, string) { return k.ids.New(time.Now()), message.NewPublicID() }
	return k.Add(time.Now(), a, name, s.note), s
}

// accept puts a joined message on disk, as the pipeline does.
func (k *kit) accept(set *Set) *message.Message {
	k.t.Helper()
	a := set.Arrival()
	e := &spool.Entry{Message: a.Message, Submitter: a.Account.ID, Expiry: time.Now().Add(time.Hour), Plan: plugin.DefaultPlan()}
	err := k.spool.Put(e, spool.With{Parts: k.Leave(time.Now(), set, "")}, func(err error) {
		if err != nil {
			k.Stay(time.Now(), set, message.AsFailure(err))
			return
		}
		k.End(set, nil)
	})
	if err != nil {
		k.Stay(time.Now(), set, message.AsFailure(err))
	}
	synctest.Wait()
	return a.Message
}

// fail ends a set for good.
func (k *kit) fail(set *Set, f *message.Failure) {
	e := &spool.Entry{Message: set.Arrival().Message}
	ended := e.Summary()
	ended.State, ended.Reason = spool.StateFailed, f.Reason
	k.spool.EndParts(&ended, nil, k.Leave(time.Now(), set, f.Reason), nil, func(error) { k.End(set, f) })
	synctest.Wait()
}

// rows counts those of a table.
func (k *kit) rows(table string) int {
	k.t.Helper()
	rows, err := k.store.Scan(k.t.Context(), table, nil, nil, 10_000)
	if err != nil {
		k.t.Fatal(err)
	}
	return len(rows)
}

// empty checks that nothing is left in memory.
func (k *kit) empty() {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open)+len(k.byID)+len(k.named)+len(k.accounts)+len(k.resting)+k.overdue != 0 || k.all != (load{}) {
		k.t.Errorf("there is left: %d open, %d named, %d accounts, %d resting, %d overdue, %+v",
			len(k.open), len(k.named), len(k.accounts), len(k.resting), k.overdue, k.all)
	}
}
