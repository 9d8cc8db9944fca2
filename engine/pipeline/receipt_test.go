package pipeline_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// wants says what the sender wants to be told.
func wants(r message.Report) func(*plugin.Arrival) {
	return func(a *plugin.Arrival) { a.Message.Report = r }
}

// mailbox gets receipts, and answers for the peers of messages as these say.
type mailbox struct {
	mu       sync.Mutex
	got      []message.Message
	accounts []string         // whose binding each went to
	refuses  *message.Failure // of receipts
}

func (b *mailbox) take(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	if m.Receipt == nil {
		switch string(m.Body) {
		case "declined":
			return plugin.Receipt{}, message.Fail(message.Declined, "no")
		case "busy":
			return plugin.Receipt{}, message.FailForNow(message.Busy, "no")
		case "promised":
			return plugin.Receipt{PeerIDs: []string{"p"}}, nil
		case "taken":
			return plugin.Receipt{}, nil
		}
		return plugin.Receipt{Final: true}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuses != nil {
		return plugin.Receipt{}, b.refuses
	}
	b.got = append(b.got, *m)
	b.accounts = append(b.accounts, r.Binding.Account)
	return plugin.Receipt{Final: true}, nil
}

func (b *mailbox) received() []message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

// withMailbox runs a test in which alice, who is registered, sends to bob, who is too.
func withMailbox(t *testing.T, policy *testPolicy, change func(*pipeline.Parts), test func(*testing.T, *solo, *mailbox)) {
	t.Helper()
	inBubble(t, policy, change, func(t *testing.T, s *solo) {
		b := &mailbox{}
		s.door.take = b.take
		s.door.register(t.Context(), "alice", "esme")
		s.door.register(t.Context(), "bob", "phone")
		test(t, s, b)
	})
}

// TestReceipts: of each end, to those who want to know of such.
func TestReceipts(t *testing.T) {
	report := func(delivered bool) func(*testing.T, *solo, string) {
		return func(t *testing.T, s *solo, _ string) {
			if err := s.door.gate.Report(t.Context(), "p", plugin.Status{Delivered: delivered, Reason: message.Gone}); err != nil {
				t.Error(err)
			}
		}
	}
	for name, c := range map[string]struct {
		body  string
		then  func(*testing.T, *solo, string)
		state message.ReceiptState
		why   message.Reason
		told  []message.Report
	}{
		"delivered":        {body: "hello", state: message.ReceiptDelivered, told: []message.Report{message.ReportDelivery, message.ReportEnd}},
		"reported":         {body: "promised", then: report(true), state: message.ReceiptDelivered, told: []message.Report{message.ReportDelivery, message.ReportEnd}},
		"reported failed":  {body: "promised", then: report(false), state: message.ReceiptFailed, why: message.Gone, told: []message.Report{message.ReportFailure, message.ReportEnd}},
		"failed":           {body: "declined", state: message.ReceiptFailed, why: message.Declined, told: []message.Report{message.ReportFailure, message.ReportEnd}},
		"nobody will tell": {body: "taken", state: message.ReceiptUnknown, told: []message.Report{message.ReportEnd}},
		"nobody has told": {body: "promised", then: func(t *testing.T, s *solo, _ string) {
			time.Sleep(26 * time.Hour)
			s.door.register(t.Context(), "alice", "esme")
		}, state: message.ReceiptUnknown, told: []message.Report{message.ReportEnd}},
		"expired": {body: "busy", then: func(t *testing.T, s *solo, _ string) {
			time.Sleep(2 * time.Hour)
			s.door.register(t.Context(), "alice", "esme")
		}, state: message.ReceiptFailed, why: message.Expired,
			told: []message.Report{message.ReportFailure, message.ReportEnd}},
		"cancelled by the sender": {body: "busy", then: func(t *testing.T, s *solo, name string) {
			if n, err := s.CancelOf(t.Context(), "alice", plugin.Which{PublicID: name}); n != 1 || err != nil {
				t.Error(n, err)
			}
		}, state: message.ReceiptFailed, why: message.Cancelled, told: []message.Report{message.ReportFailure, message.ReportEnd}},
		"cancelled by the operator": {body: "busy", then: func(t *testing.T, s *solo, name string) {
			for _, v := range s.history(t) {
				if err := s.Cancel(t.Context(), v.ID); err != nil {
					t.Error(err)
				}
			}
		}, state: message.ReceiptFailed, why: message.Cancelled, told: []message.Report{message.ReportFailure, message.ReportEnd}},
	} {
		for r := message.ReportNothing; r <= message.ReportEnd; r++ {
			t.Run(fmt.Sprint(name, " ", r), func(t *testing.T) {
				withMailbox(t, charged(), nil, func(t *testing.T, s *solo, b *mailbox) {
					began := time.Now()
					public := s.hand(t, "alice", "bob", c.body, wants(r))
					if c.then != nil {
						c.then(t, s, public)
					}
					synctest.Wait()
					got := b.received()
					if want := slices.Contains(c.told, r); !want || len(got) != 1 {
						if want || len(got) > 0 {
							t.Fatalf("%d receipts", len(got))
						}
						return
					}
					m := got[0]
					want := message.Receipt{PublicID: public, State: c.state, Reason: c.why, Submitted: m.Receipt.Submitted, Done: m.Receipt.Done}
					if *m.Receipt != want || !m.Receipt.Submitted.Equal(began) || m.Receipt.Done.Before(began) {
						t.Errorf("%+v, want %+v", *m.Receipt, want)
					}
					if m.From != address("bob") || m.Recipient != address("alice") || b.accounts[0] != "alice" || m.ContentType != "receipt" || len(m.Body) > 0 || m.Report != 0 {
						t.Errorf("%+v", m)
					}
					if paid := rows(t, s.storage, "test/paid"); len(paid) > 1 {
						t.Errorf("%d payments", len(paid))
					}
					if left := rows(t, s.storage, "messages"); len(left) > 0 {
						t.Errorf("%d messages wait", len(left))
					}
				})
			})
		}
	}
}

// TestReceiptIsSeen by the operator as what it is, and counted apart.
func TestReceiptIsSeen(t *testing.T) {
	metrics := plugin.NewMetrics()
	policy := charged()
	policy.asked = func(q plugin.Question, _ plugin.Supply, p *plugin.Plan) {
		p.Labels = map[string]string{"asked": q.Sender.Account}
	}
	withMailbox(t, policy, func(p *pipeline.Parts) { p.Metrics = metrics }, func(t *testing.T, s *solo, _ *mailbox) {
		public := s.hand(t, "alice", "bob", "hello", wants(message.ReportEnd))
		all := s.history(t)
		if len(all) != 2 {
			t.Fatalf("%+v", all)
		}
		r := all[1]
		if r.Type != "receipt" || r.State != spool.StateDelivered || r.From != address("bob") || r.To != address("alice") || r.Account != "" ||
			r.Service != "" || len(r.Labels) > 0 || r.Expiry.Sub(r.Received) != 72*time.Hour {
			t.Errorf("%+v", r)
		}
		if _, err := s.Find(t.Context(), "alice", r.PublicID); reason(err) != message.UnknownMessage {
			t.Errorf("a receipt is found as a message: %v", err)
		}
		if found := s.found(t, "alice", public); found.State != plugin.SubmittedDelivered {
			t.Errorf("%+v", found)
		}
		for what, want := range map[string]float64{"messages_ended_total": 1, "receipts_ended_total": 1, "messages_accepted_total": 1, "message_seconds": 1} {
			if n := value(metrics, what); n != want {
				t.Errorf("%s is %v, want %v", what, n, want)
			}
		}
	})
}

// TestReceiptsWait for who isn't there, in the order in which their messages ended,
// also for another node; not for ever.
func TestReceiptsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		s := alone(t, memory.Open(disk), charged(), nil)
		b := &mailbox{}
		s.door.take = b.take
		s.door.register(t.Context(), "bob", "phone")
		var want []string
		for i := range 5 {
			want = append(want, s.hand(t, "alice", "bob", fmt.Sprint("hello ", i), wants(message.ReportEnd)))
		}
		if waiting := s.list(t, pipeline.Filter{State: spool.StateWaiting, To: address("alice")}); len(waiting) != 5 || len(b.received()) > 0 {
			t.Fatalf("%d wait, %d arrived", len(waiting), len(b.received()))
		}
		s = s.restart(t, disk, charged(), nil)
		s.door.take = b.take
		synctest.Wait()
		s.door.register(t.Context(), "alice", "esme")
		synctest.Wait()
		var got []string
		for _, m := range b.received() {
			got = append(got, m.Receipt.PublicID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		s.hand(t, "carol", "bob", "hello", wants(message.ReportEnd))
		time.Sleep(73 * time.Hour)
		if left := rows(t, s.storage, "messages"); len(left) > 0 || len(b.received()) != 5 {
			t.Errorf("%d wait after their time", len(left))
		}
	})
}

// TestReceiptThatIsRefused ends, and nobody is told of that.
func TestReceiptThatIsRefused(t *testing.T) {
	withMailbox(t, charged(), nil, func(t *testing.T, s *solo, b *mailbox) {
		b.refuses = message.Fail(message.Declined, "no")
		s.hand(t, "alice", "bob", "hello", wants(message.ReportEnd))
		all := s.history(t)
		if len(all) != 2 || all[1].State != spool.StateFailed || all[1].Reason != message.Declined {
			t.Errorf("%+v", all)
		}
	})
}

// TestNoReceipt of what ends in silence, or goes on under the same name.
func TestNoReceipt(t *testing.T) {
	discards := &testPolicy{asked: func(q plugin.Question, more plugin.Supply, p *plugin.Plan) {
		switch more.Text() {
		case "discarded":
			p.Processing = plugin.Discard
		case "rejected":
			p.Processing = plugin.Reject
		}
	}}
	withMailbox(t, discards, nil, func(t *testing.T, s *solo, b *mailbox) {
		s.hand(t, "alice", "bob", "discarded", wants(message.ReportEnd))
		if _, err := s.door.submit("alice", "bob", "rejected", wants(message.ReportEnd)).Accepted(t.Context()); reason(err) != message.Rejected {
			t.Error(err)
		}
		s.hand(t, "alice", "bob", "is typing", wants(message.ReportEnd), func(a *plugin.Arrival) {
			a.Message.ContentType = "application/im-iscomposing+xml"
		})
		name := s.hand(t, "alice", "bob", "busy", wants(message.ReportEnd))
		if err := s.replace(t, "alice", name, "hello"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := b.received()
		if len(got) != 1 || got[0].Receipt.PublicID != name || got[0].Receipt.State != message.ReceiptDelivered {
			t.Errorf("%+v", got)
		}
		name = s.hand(t, "alice", "bob", "busy", wants(message.ReportEnd), func(a *plugin.Arrival) { a.Key += " again" })
		nothing := message.ReportNothing
		if err := s.replace(t, "alice", name, "hello", func(r *plugin.Replacement) { r.Report = &nothing }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.received(); len(got) != 1 {
			t.Errorf("%+v", got[1].Receipt)
		}
	})
}

// TestReceiptOfParts: one for the joined message, if any part wants it.
func TestReceiptOfParts(t *testing.T) {
	for i, report := range [][2]message.Report{
		{message.ReportEnd, message.ReportEnd}, {message.ReportNothing, message.ReportEnd}, {message.ReportDelivery, message.ReportFailure},
		{message.ReportEnd, message.ReportNothing}, {message.ReportNothing, message.ReportNothing},
	} {
		withMailbox(t, charged(), nil, func(t *testing.T, s *solo, b *mailbox) {
			s.door.submit("alice", "bob", "hello ", wants(report[0]), part(7, 2, 1)).Accepted(t.Context())
			answer, err := s.door.submit("alice", "bob", "taken", wants(report[1]), part(7, 2, 2)).Accepted(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			got := b.received()
			if len(got) != min(1, int(report[0]|report[1])) || len(got) > 0 && got[0].Receipt.PublicID != answer.PublicID {
				t.Errorf("%d: %+v", i, got)
			}
		})
	}
}

// TestReceiptOfPartsThatAreRefused: only if there is no other answer that says so.
func TestReceiptOfPartsThatAreRefused(t *testing.T) {
	rejects := &testPolicy{change: func(p *plugin.Plan) { p.Processing, p.Reason = plugin.Reject, message.Incomplete }}
	withMailbox(t, rejects, nil, func(t *testing.T, s *solo, b *mailbox) {
		send := func(reference uint16, number uint8) (plugin.Answer, error) {
			return s.door.submit("alice", "bob", fmt.Sprint("hello ", reference, number), wants(message.ReportEnd), part(reference, 2, number)).Accepted(t.Context())
		}
		send(1, 1)
		if _, err := send(1, 2); reason(err) != message.Incomplete {
			t.Error(err)
		}
		answer, err := send(2, 1)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := b.received()
		if len(got) != 1 || got[0].Receipt.PublicID != answer.PublicID || got[0].Receipt.State != message.ReceiptFailed || got[0].Receipt.Reason != message.Incomplete {
			t.Errorf("%+v", got)
		}
	})
}

// TestReceiptsAreBounded: one that never asks for its receipts doesn't fill the
// spool, and nobody's message is refused for that.
func TestReceiptsAreBounded(t *testing.T) {
	metrics := plugin.NewMetrics()
	inBubble(t, charged(), func(p *pipeline.Parts) { p.Limits.PerRecipient, p.Metrics = 3, metrics }, func(t *testing.T, s *solo) {
		s.door.take = (&mailbox{}).take
		s.door.register(t.Context(), "bob", "phone")
		for i := range 10 {
			s.hand(t, "alice", "bob", fmt.Sprint("hello ", i), wants(message.ReportEnd))
		}
		if waiting := rows(t, s.storage, "messages"); len(waiting) != 3 || value(metrics, "receipts_refused_total", label("reason", "limit-reached")) != 7 {
			t.Errorf("%d wait", len(waiting))
		}
	})
}
