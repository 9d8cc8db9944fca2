package pipeline_test

import (
	"testing"
	"testing/synctest"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
)

func TestRewrite(t *testing.T) {
	sender, recipient := address("hidden"), address("carol")
	change := func(p *plugin.Plan) { p.Rewrite = plugin.PlanRewrite{Sender: sender, Recipient: recipient} }
	for name, c := range map[string]struct {
		transport string
		from      string
	}{"over a trunk": {"main", "alice"}, "to a phone": {"door", "alice"}, "to oneself": {"door", "carol"}} {
		t.Run(name, func(t *testing.T) {
			onStage(t, change, func(t *testing.T, s *stage) {
				s.policy.also(func(p *plugin.Plan) { p.Transports = []string{c.transport} })
				var got *message.Message
				s.door.take = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
					got = m
					if r.Binding.Account != "carol" {
						t.Errorf("it goes to %s", r.Binding.Account)
					}
					return taken(m, r)
				}
				s.main.answer = func(m *message.Message, r plugin.Route) (plugin.Receipt, error) {
					got = m
					return taken(m, r)
				}
				for _, user := range []string{"bob", "carol"} {
					if err := s.door.register(t.Context(), user, "phone"); err != nil {
						t.Fatal(err)
					}
				}
				var submitted *message.Message
				id := s.send(t, c.from, "bob", "x", func(a *plugin.Arrival) {
					submitted = a.Message
					a.Message.DisplayName = "Alice"
				})
				v := s.ends(id)
				if got == nil || got.From != sender || got.Recipient != recipient || got.DisplayName != "" || string(got.Body) != "x" {
					t.Fatalf("the recipient gets %+v", got)
				}
				if submitted.From != address(c.from) || submitted.Recipient != address("bob") || submitted.DisplayName != "Alice" {
					t.Errorf("what was submitted is %+v", submitted)
				}
				if v.From != address(c.from) || v.To != recipient || v.SentAs != sender || v.OriginalTo != address("bob") {
					t.Errorf("the record is %s", asJSON(v))
				}
				records := s.audit.settled()
				if len(records) != 1 || records[0].From != address(c.from) || records[0].Recipient != recipient || records[0].Payer != c.from || !records[0].Charged {
					t.Errorf("charging was told %+v", records)
				}
				if r := s.audit.requests[0]; r.From != address(c.from) || r.Recipient != recipient {
					t.Errorf("charging was asked %+v", r)
				}
				for _, to := range []message.Address{recipient, address("bob")} {
					if found := s.list(t, pipeline.Filter{To: to}); len(found) != 1 {
						t.Errorf("listed by %s: %q", to, found)
					}
				}
			})
		})
	}
}

// TestRewrittenWaits: for the one that it is for now, also after a restart.
func TestRewrittenWaits(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Transports, p.Rewrite = []string{"door"}, plugin.PlanRewrite{Sender: address("hidden"), Recipient: address("carol")}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		id := s.send(t, "alice", "bob", "x")
		if v := s.state(t, id); v.To != address("carol") || v.OriginalTo != address("bob") || v.SentAs != address("hidden") {
			t.Errorf("%s", asJSON(v))
		}
		s.restart()
		s.door.register(t.Context(), "bob", "phone")
		synctest.Wait()
		if got := s.door.bodies(); len(got) != 0 {
			t.Errorf("bob gets %q", got)
		}
		s.door.register(t.Context(), "carol", "phone")
		if v := s.ends(id); v.Reason != "" || len(s.door.bodies()) != 1 {
			t.Errorf("%s", asJSON(v))
		}
	})
}

func TestRewriteToNobody(t *testing.T) {
	change := func(p *plugin.Plan) { p.Transports, p.Rewrite.Recipient = []string{"door"}, address("?") }
	onStage(t, change, func(t *testing.T, s *stage) {
		wantRefusal(t, s.door.submit("alice", "bob", "x"), message.UnknownRecipient, false)
	})
}
