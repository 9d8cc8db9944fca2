package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// hand submits a message and returns its name.
func (s *solo) hand(t *testing.T, from, to, body string, change ...func(*plugin.Arrival)) string {
	t.Helper()
	ticket := s.door.submit(from, to, body, append(change, func(a *plugin.Arrival) { a.Message.Peer = body })...)
	answer, err := ticket.Accepted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return answer.PublicID
}

// found is what an account is told of a message.
func (s *solo) found(t *testing.T, account, name string) plugin.Submitted {
	t.Helper()
	found, err := s.Find(t.Context(), account, name)
	if err != nil {
		t.Fatalf("%s asks for %q: %v", account, name, err)
	}
	return found
}

func short(a *plugin.Arrival) { a.ShortName = true }

// restart stops a pipeline and runs another one on its disk.
func (s *solo) restart(t *testing.T, disk *memory.Disk, policy *testPolicy, change func(*pipeline.Parts)) *solo {
	t.Helper()
	s.stop()
	return alone(t, memory.Open(disk), policy, change)
}

func TestFind(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		defer release()
		for state, want := range map[spool.StateName]plugin.SubmittedState{
			spool.StateWaiting: plugin.SubmittedWaiting, spool.StateSending: plugin.SubmittedWaiting, spool.StateQuarantined: plugin.SubmittedWaiting,
			spool.StateHandedOver: plugin.SubmittedHanded, spool.StateDelivered: plugin.SubmittedDelivered, spool.StateFailed: plugin.SubmittedFailed,
		} {
			v := s.state(t, ids[state])
			got := s.found(t, v.From.User, v.PublicID)
			ended := state == spool.StateDelivered || state == spool.StateFailed
			if got.State != want || got.From != v.From || got.Recipient != v.To || !got.Received.Equal(v.Received) || got.Ended.IsZero() == ended {
				t.Errorf("%s is found as %+v", state, got)
			}
			if (got.Reason != "") != (state == spool.StateFailed) {
				t.Errorf("%s has reason %q", state, got.Reason)
			}
			for what, ask := range map[string][2]string{
				"another account": {"mallory", v.PublicID}, "no account": {"", v.PublicID},
				"its id": {v.From.User, ids[state].String()}, "a part of its name": {v.From.User, v.PublicID[:21]},
			} {
				if got, err := s.Find(t.Context(), ask[0], ask[1]); reason(err) != message.UnknownMessage {
					t.Errorf("%s: with %s: %+v, %v", state, what, got, err)
				}
			}
		}
	})
}

func TestFindDiscarded(t *testing.T) {
	inBubble(t, &testPolicy{change: func(p *plugin.Plan) { p.Processing = plugin.Discard }}, nil, func(t *testing.T, s *solo) {
		for _, name := range []string{s.hand(t, "alice", "bob", "x"), s.hand(t, "alice", "bob", "y", short)} {
			if got := s.found(t, "alice", name); got.State != plugin.SubmittedDiscarded || got.Ended.IsZero() {
				t.Errorf("%q: %+v", name, got)
			}
		}
	})
}

// TestFindRewritten: who handed a message in knows the addresses that it said.
func TestFindRewritten(t *testing.T) {
	policy := charged()
	policy.also(func(p *plugin.Plan) { p.Rewrite.Recipient, p.Rewrite.Sender = address("carol"), address("hidden") })
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		got := s.found(t, "alice", s.hand(t, "alice", "bob", "x"))
		if got.From != address("alice") || got.Recipient != address("bob") {
			t.Errorf("%+v", got)
		}
	})
}

func TestFindUnanswered(t *testing.T) {
	disk := memory.NewDisk()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(disk), charged(), nil)
		name := s.hand(t, "alice", "bob", "x")
		s.stop()
		id, _ := spool.NewNames([32]byte{}).ID(name)
		committer, stop := writes(t, memory.Open(disk))
		state := spool.State{Attempts: 1, Deliveries: []spool.Delivery{{Transport: "door", Device: "phone", Unknown: true}}}
		if err := written(t, func(done func(error)) { spool.New(nil, committer).Move(spool.Fate{ID: id, State: state}, done) }); err != nil {
			t.Fatal(err)
		}
		stop()
		s = alone(t, memory.Open(disk), charged(), nil)
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedUnknown || !got.Ended.IsZero() {
			t.Errorf("%+v", got)
		}
	})
}

// written waits until what write writes is on disk.
func written(t *testing.T, write func(done func(error))) error {
	t.Helper()
	done := make(chan error, 1)
	write(func(err error) { done <- err })
	return <-done
}

// TestNamesOutliveRestarts, and those of another installation lead nowhere.
func TestNamesOutliveRestarts(t *testing.T) {
	disk := memory.NewDisk()
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, memory.Open(disk), charged(), nil)
		names := []string{s.hand(t, "alice", "bob", "long"), s.hand(t, "alice", "bob", "short", short)}
		s = s.restart(t, disk, charged(), nil)
		for _, name := range names {
			if got := s.found(t, "alice", name); got.State != plugin.SubmittedWaiting {
				t.Errorf("%q: %+v", name, got)
			}
		}
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		s = s.restart(t, disk, charged(), func(p *pipeline.Parts) { p.Key[0]++ })
		if got, err := s.Find(t.Context(), "alice", names[0]); reason(err) != message.UnknownMessage {
			t.Errorf("under another key: %+v, %v", got, err)
		}
		if got := s.found(t, "alice", names[1]); got.State != plugin.SubmittedDelivered {
			t.Errorf("a short name needs no key: %+v", got)
		}
	})
}

// TestNamesOverNodes: they are made of the installation's secret, and so are the
// same on every node, and unlike those of any other installation.
func TestNamesOverNodes(t *testing.T) {
	var ids []message.ID
	var names []string
	for _, disk := range []*memory.Disk{memory.NewDisk(), memory.NewDisk()} {
		for _, node := range []string{"one", "two"} {
			k := startAs(t, node, memory.Open(disk), newDoor(), charged())
			if !k.started() {
				t.Fatal("the node doesn't start")
			}
			if node == "one" {
				answer, err := k.door.submit("alice", "bob", "x").Accepted(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				ids, names = append(ids, answer.ID), append(names, answer.PublicID)
			}
			last := len(names) - 1
			if got, err := k.door.gate.Find(t.Context(), "alice", names[last]); err != nil || got.State != plugin.SubmittedWaiting {
				t.Errorf("on node %s: %+v, %v", node, got, err)
			}
			by := plugin.Replacement{Account: account("alice"), Body: []byte("y")}
			rests := func(do func() error) { // it may be at work just now
				t.Helper()
				eventually(t, "it rests", func() bool {
					err := do()
					if err != nil && reason(err) != message.Conflict {
						t.Fatalf("on node %s: %v", node, err)
					}
					return err == nil
				})
			}
			rests(func() error { return k.door.gate.Replace(t.Context(), "alice", names[last], by) })
			if got, err := k.door.gate.Find(t.Context(), "alice", names[0]); last > 0 && reason(err) != message.UnknownMessage {
				t.Errorf("a name of another installation leads to %+v, %v", got, err)
			}
			if node == "two" {
				rests(func() error {
					_, err := k.door.gate.Cancel(t.Context(), "alice", plugin.Which{PublicID: names[last]})
					return err
				})
			}
			if err := k.end(); err != nil {
				t.Error(err)
			}
		}
	}
	for i, id := range ids {
		if name := spool.NewNames([32]byte{}).Of(id); name == names[i] {
			t.Error("the name is made without a secret")
		}
	}
}

func TestShortNames(t *testing.T) {
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Retention = time.Hour }, func(t *testing.T, s *solo) {
		var references []string
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			references = append(references, r.Reference)
			return taken(m, r)
		}
		s.door.register(t.Context(), "bob", "phone")
		const n = 200
		names := map[string]bool{}
		for i := range n {
			name := s.hand(t, "alice", "bob", fmt.Sprint(i), short)
			if len(name) != 8 || strings.Trim(name, "0123456789abcdef") != "" || names[name] {
				t.Fatalf("short name %q", name)
			}
			names[name] = true
			if got := s.found(t, "alice", name); got.State != plugin.SubmittedDelivered {
				t.Errorf("%q: %+v", name, got)
			}
			if _, err := s.Find(t.Context(), "bob", name); reason(err) != message.UnknownMessage {
				t.Errorf("another account: %v", err)
			}
		}
		if len(references) != n || len(references[0]) != 31 || slices.ContainsFunc(references, func(r string) bool { return names[r[:8]] }) {
			t.Errorf("the next hop can guess a reference: %q", references[:3])
		}
		if rows := rows(t, s.storage, "names"); len(rows) != n {
			t.Errorf("%d rows for %d names", len(rows), n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if rows := rows(t, s.storage, "names"); len(rows) != 0 {
			t.Errorf("%d rows for messages that are forgotten", len(rows))
		}
	})
}

// TestShortNameOfARepeat: a repeat is told the same name.
func TestShortNameOfARepeat(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		first := s.hand(t, "alice", "bob", "x", short)
		if again := s.hand(t, "alice", "bob", "x", short); again != first {
			t.Errorf("%q, then %q", first, again)
		}
	})
}

func TestCancelOfAnAccount(t *testing.T) {
	inBubble(t, charged(), nil, func(t *testing.T, s *solo) {
		ids, release := everyState(t, s)
		for state, want := range map[spool.StateName]message.Reason{
			spool.StateWaiting: "", spool.StateQuarantined: "", spool.StateSending: message.Conflict,
			spool.StateHandedOver: message.Conflict, spool.StateDelivered: message.Conflict, spool.StateFailed: message.Conflict,
		} {
			v := s.state(t, ids[state])
			which := plugin.Which{PublicID: v.PublicID}
			if _, err := s.CancelOf(t.Context(), "mallory", which); reason(err) != message.UnknownMessage {
				t.Errorf("%s of another's: %v", state, err)
			}
			n, err := s.CancelOf(t.Context(), v.From.User, which)
			if want != "" {
				if n != 0 || reason(err) != want {
					t.Errorf("%s: %d, %v", state, n, err)
				}
				continue
			}
			if n != 1 || err != nil {
				t.Errorf("%s: %d, %v", state, n, err)
			}
			if got := s.found(t, v.From.User, v.PublicID); got.State != plugin.SubmittedFailed || got.Reason != message.Cancelled {
				t.Errorf("%s is then %+v", state, got)
			}
			if _, err := s.CancelOf(t.Context(), v.From.User, which); reason(err) != message.Conflict {
				t.Errorf("%s again: %v", state, err)
			}
		}
		release()
		synctest.Wait()
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 0 {
			t.Errorf("%d reservations stand", len(holds))
		}
	})
}

// TestCancelBetween: all that waits from a sender to a recipient as they came,
// wherever it waits, and nothing else.
func TestCancelBetween(t *testing.T) {
	policy := charged()
	policy.asked = func(_ plugin.Question, more plugin.Supply, p *plugin.Plan) {
		if strings.HasPrefix(more.Text(), "rewritten") {
			p.Rewrite.Recipient = address("carol")
		}
	}
	inBubble(t, policy, nil, func(t *testing.T, s *solo) {
		hang := make(chan struct{})
		s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			switch body := string(m.Body); {
			case strings.HasPrefix(body, "poison"):
				return plugin.Receipt{}, message.Fail(message.Unbuildable, "x")
			case body == "under way":
				<-hang
			}
			return taken(m, r)
		}
		which := plugin.Which{From: address("alice"), Recipient: address("bob")}
		if n, err := s.CancelOf(t.Context(), "alice", which); n != 0 || reason(err) != message.UnknownMessage {
			t.Errorf("when there is none: %d, %v", n, err)
		}
		s.door.register(t.Context(), "bob", "phone")
		s.hand(t, "alice", "bob", "poison")
		s.hand(t, "alice", "bob", "under way")
		if n, err := s.CancelOf(t.Context(), "alice", plugin.Which{From: address("alice"), Recipient: address("bob")}); n != 1 || err != nil {
			t.Errorf("the one in quarantine, and not that which is being sent: %d, %v", n, err)
		}
		if n, err := s.CancelOf(t.Context(), "alice", which); n != 0 || reason(err) != message.Conflict {
			t.Errorf("that which is being sent: %d, %v", n, err)
		}
		var gone []string
		for i := range 3 {
			gone = append(gone, s.hand(t, "alice", "bob", fmt.Sprint("behind ", i)))
		}
		gone = append(gone, s.hand(t, "alice", "bob", "rewritten"), s.hand(t, "alice", "bob", "scheduled", notBefore(time.Hour)))
		stay := []string{
			s.hand(t, "alice", "carol", "to another"),
			s.hand(t, "alice", "bob", "of another", func(a *plugin.Arrival) { a.Account.ID = "other" }),
		}
		others := s.hand(t, "dave", "bob", "from another", notBefore(time.Hour))
		if n, err := s.CancelOf(t.Context(), "alice", which); n != len(gone) || err != nil {
			t.Errorf("%d are ended, %v, want %d", n, err, len(gone))
		}
		for _, name := range gone {
			if got := s.found(t, "alice", name); got.Reason != message.Cancelled {
				t.Errorf("%+v", got)
			}
		}
		for account, name := range map[string]string{"alice": stay[0], "other": stay[1], "dave": others} {
			if got := s.found(t, account, name); !got.Ended.IsZero() {
				t.Errorf("of %s: %+v", account, got)
			}
		}
		close(hang)
		synctest.Wait()
		if got := s.door.bodies(); !slices.Equal(got, []string{"under way", "of another"}) {
			t.Errorf("delivered %q", got)
		}
		if holds := rows(t, s.storage, "test/holds"); len(holds) != 2 {
			t.Errorf("%d reservations stand, want those of two that wait", len(holds))
		}
	})
}

func TestCancelIsBounded(t *testing.T) {
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Limits.PerRecipient = 20_000 }, func(t *testing.T, s *solo) {
		const n = 10_500
		for i := range n {
			if _, err := s.door.submit("alice", "nobody", fmt.Sprint(i)).Accepted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		which := plugin.Which{From: address("alice"), Recipient: address("nobody")}
		for _, want := range []int{10_000, 500} {
			if got, err := s.CancelOf(t.Context(), "alice", which); got != want || err != nil {
				t.Errorf("%d are ended, %v, want %d", got, err, want)
			}
		}
		if waiting := s.Snapshot()["waiting"]; waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
	})
}

// TestQuestionsWhileTheStorageFails get a temporary failure.
func TestQuestionsWhileTheStorageFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &blind{Storage: memory.Open(memory.NewDisk())}
		s := alone(t, storage, charged(), nil)
		name := s.hand(t, "alice", "bob", "x")
		storage.blind = true
		_, find := s.Find(t.Context(), "alice", name)
		_, cancel := s.CancelOf(t.Context(), "alice", plugin.Which{PublicID: name})
		_, all := s.CancelOf(t.Context(), "alice", plugin.Which{From: address("alice"), Recipient: address("bob")})
		for what, err := range map[string]error{
			"find": find, "cancel": cancel, "cancel all": all, "replace": s.replace(t, "alice", name, "y"),
			"a short name": func() error { _, err := s.door.submit("alice", "bob", "z", short).Accepted(t.Context()); return err }(),
		} {
			if f := message.AsFailure(err); err == nil || f.Reason != message.StorageDown || !f.Temporary {
				t.Errorf("%s: %v", what, err)
			}
		}
		storage.blind = false
		if got := s.found(t, "alice", name); got.State != plugin.SubmittedWaiting {
			t.Errorf("it is then %+v", got)
		}
	})
}

// blind is a storage that can't be read now and then.
type blind struct {
	plugin.Storage
	blind bool
}

func (b *blind) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if b.blind {
		return nil, errDead
	}
	return b.Storage.Scan(ctx, table, from, to, n)
}
