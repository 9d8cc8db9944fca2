package pipeline_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// relay is a way to whoever the next hop serves; what it answers is the test's.
type relay struct {
	answer func(*message.Message, plugin.Route) (plugin.Receipt, error)

	mu   sync.Mutex
	sent []relayed
}

// relayed is an attempt.
type relayed struct {
	from, to, name, address, reference string
}

func (r *relay) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	<-ctx.Done()
	return nil
}

func (r *relay) Send(_ context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	r.mu.Lock()
	r.sent = append(r.sent, relayed{m.From.String(), m.Recipient.String(), m.DisplayName, route.Address, route.Reference})
	r.mu.Unlock()
	if r.answer == nil {
		return plugin.Receipt{Final: true}, nil
	}
	return r.answer(m, route)
}

func (r *relay) attempts() []relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent)
}

// fails answers every attempt with a failure.
func fails(reason message.Reason, temporary bool) func(*message.Message, plugin.Route) (plugin.Receipt, error) {
	return func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{}, &message.Failure{Reason: reason, Temporary: temporary}
	}
}

// auditor notes what charging is asked and told, and names routes.
type auditor struct {
	plugin.Charging
	routes []plugin.Route

	mu       sync.Mutex
	requests []plugin.Request
	records  []plugin.Record
}

func (a *auditor) Authorize(ctx context.Context, r plugin.Request) (plugin.Authorization, error) {
	authorization, err := a.Charging.Authorize(ctx, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r)
	authorization.Routes = a.routes
	return authorization, err
}

func (a *auditor) Settle(ctx context.Context, records []plugin.Record) ([]plugin.Change, error) {
	a.mu.Lock()
	a.records = append(a.records, records...)
	a.mu.Unlock()
	return a.Charging.Settle(ctx, records)
}

// settled waits until nothing moves, and returns the records so far. One that was
// found on disk and in memory came twice, and counts once.
func (a *auditor) settled() []plugin.Record {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.CompactFunc(slices.Clone(a.records), func(a, b plugin.Record) bool { return a.Key == b.Key && a.Charged == b.Charged })
}

// stage is a pipeline with two trunks, "main" and "backup", and a door to phones,
// on a disk that it can be restarted on.
type stage struct {
	*solo
	t            *testing.T
	disk         *memory.Disk
	policy       *testPolicy
	main, backup *relay
	audit        *auditor
	parts        pipeline.Parts
	phones       *testDoor // behind the door, if it isn't nil
}

// onStage runs a test in a bubble. Unless change says otherwise messages go over
// "main" and are charged.
func onStage(t *testing.T, change func(*plugin.Plan), test func(*testing.T, *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, disk: memory.NewDisk(), policy: charged(), main: &relay{}, backup: &relay{}, audit: &auditor{}}
		s.policy.also(func(p *plugin.Plan) { p.Transports = []string{"main"} })
		if change != nil {
			s.policy.also(change)
		}
		s.open()
		test(t, s)
	})
}

func (s *stage) open() {
	s.solo = alone(s.t, memory.Open(s.disk), s.policy, func(p *pipeline.Parts) {
		s.audit.Charging = p.Charging
		p.Charging = s.audit
		p.Doors["main"] = pipeline.Door{Transport: s.main, Plugin: "trunk", Protocol: "trunk"}
		p.Doors["side"] = pipeline.Door{Transport: newDoor(), Plugin: "door", Protocol: "door", Registrar: true}
		p.Doors["backup"] = pipeline.Door{Transport: s.backup, Plugin: "spare", Protocol: "spare"}
		if s.phones != nil {
			p.Doors["door"] = pipeline.Door{Transport: s.phones, Plugin: "door", Protocol: "door", Registrar: true}
		}
		p.Zone = s.parts.Zone
		p.Metrics = s.parts.Metrics
	})
}

func (s *stage) restart() {
	s.stop()
	s.open()
}

// outcome submits a message and waits for its first outcome.
func (s *stage) outcome(body string, change ...func(*plugin.Arrival)) (plugin.Outcome, error) {
	s.t.Helper()
	return first(s.t, s.door.submit("alice", "bob", body, change...))
}

// ends waits until nothing is in the spool, and returns how a message ended.
func (s *stage) ends(id message.ID) pipeline.View {
	s.t.Helper()
	for range 100_000 {
		synctest.Wait()
		if v := s.state(s.t, id); !v.Ended.IsZero() {
			return v
		}
		time.Sleep(time.Second)
	}
	s.t.Fatalf("it doesn't end: %s", asJSON(s.state(s.t, id)))
	return pipeline.View{}
}

func TestAttemptsAreBounded(t *testing.T) {
	onStage(t, func(p *plugin.Plan) { p.Retry.Attempts = 3 }, func(t *testing.T, s *stage) {
		s.main.answer = fails(message.Busy, true)
		v := s.ends(s.send(t, "alice", "bob", "x"))
		if n := len(s.main.attempts()); n != 3 || v.Reason != message.Busy || v.Attempts != 3 {
			t.Errorf("%d attempts: %s", n, asJSON(v))
		}
		if records := s.audit.settled(); len(records) != 1 || records[0].Charged {
			t.Errorf("charging was told %+v", records)
		}
	})
}

// TestAttemptsSurviveARestart: they are counted on.
func TestAttemptsSurviveARestart(t *testing.T) {
	change := func(p *plugin.Plan) { p.Retry.Attempts, p.Retry.Backoff = 3, []time.Duration{time.Minute} }
	onStage(t, change, func(t *testing.T, s *stage) {
		s.main.answer = fails(message.Busy, true)
		id := s.send(t, "alice", "bob", "x")
		s.restart()
		if v := s.ends(id); len(s.main.attempts()) != 3 || v.Attempts != 3 || v.Reason != message.Busy {
			t.Errorf("%d attempts: %s", len(s.main.attempts()), asJSON(v))
		}
	})
}

func TestRetryReasons(t *testing.T) {
	for name, c := range map[string]struct {
		reasons   []message.Reason
		unknown   plugin.UnknownOutcome
		answer    message.Reason
		temporary bool
		attempts  int // until it ends; 4: it is repeated
	}{
		"the peer says for now":               {nil, plugin.UnknownRetry, message.Busy, true, 4},
		"the peer says for good":              {nil, plugin.UnknownRetry, message.Busy, false, 1},
		"named, for good":                     {[]message.Reason{message.Busy, message.Gone}, plugin.UnknownRetry, message.Gone, false, 4},
		"not named, for now":                  {[]message.Reason{message.Busy}, plugin.UnknownRetry, message.Unavailable, true, 1},
		"no answer":                           {nil, plugin.UnknownRetry, message.NoAnswer, true, 4},
		"no answer, named":                    {[]message.Reason{message.NoAnswer}, plugin.UnknownRetry, message.NoAnswer, true, 4},
		"no answer, not named":                {[]message.Reason{message.Busy}, plugin.UnknownRetry, message.NoAnswer, true, 1},
		"no answer is the end":                {nil, plugin.UnknownFail, message.NoAnswer, true, 1},
		"no answer is the end though named":   {[]message.Reason{message.NoAnswer}, plugin.UnknownFail, message.NoAnswer, true, 1},
		"no answer, and no fallback":          {nil, plugin.UnknownFallback, message.NoAnswer, true, 1},
		"another reason, no answer is an end": {nil, plugin.UnknownFail, message.Busy, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(p *plugin.Plan) {
				p.Retry = plugin.PlanRetry{Attempts: 4, Backoff: []time.Duration{time.Second}, Reasons: c.reasons, Unknown: c.unknown}
			}
			onStage(t, change, func(t *testing.T, s *stage) {
				s.main.answer = fails(c.answer, c.temporary)
				v := s.ends(s.send(t, "alice", "bob", "x"))
				if n := len(s.main.attempts()); n != c.attempts || v.Reason != c.answer {
					t.Errorf("%d attempts, want %d: %s", n, c.attempts, asJSON(v))
				}
			})
		})
	}
}

// TestNotGivenUpWhileStopping: what fails for now when the node stops is tried
// again by the next one, whatever the plan says.
func TestNotGivenUpWhileStopping(t *testing.T) {
	change := func(p *plugin.Plan) { p.Retry.Attempts, p.Retry.Reasons = 1, []message.Reason{message.Busy} }
	onStage(t, change, func(t *testing.T, s *stage) {
		release := make(chan struct{})
		s.main.answer = func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			<-release
			return plugin.Receipt{}, message.FailForNow(message.Unavailable, "closing")
		}
		id := s.send(t, "alice", "bob", "x")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.stop()
		}()
		synctest.Wait()
		close(release)
		<-stopped
		s.main.answer = nil
		s.open()
		if v := s.ends(id); v.Reason != "" || v.Attempts != 2 {
			t.Errorf("%s", asJSON(v))
		}
	})
}

// TestUnansweredIsNotCutShort: where there is no other attempt, a registration
// doesn't end the one that is under way.
func TestUnansweredIsNotCutShort(t *testing.T) {
	for unknown, attempts := range map[plugin.UnknownOutcome]int{plugin.UnknownRetry: 2, plugin.UnknownFail: 1} {
		change := func(p *plugin.Plan) { p.Transports, p.Retry.Unknown = []string{"door"}, unknown }
		onStage(t, change, func(t *testing.T, s *stage) {
			asked := 0
			s.door.taking = func(ctx context.Context, _ *message.Message, _ plugin.Route) (plugin.Receipt, error) {
				asked++
				if asked > 1 {
					return plugin.Receipt{Final: true}, nil
				}
				select {
				case <-ctx.Done():
					return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "cut short")
				case <-time.After(10 * time.Second):
					return plugin.Receipt{Final: true}, nil
				}
			}
			if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
				t.Fatal(err)
			}
			id := s.send(t, "alice", "bob", "x")
			time.Sleep(5 * time.Second)
			if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
				t.Fatal(err)
			}
			if v := s.ends(id); asked != attempts || v.Reason != "" {
				t.Errorf("%s: asked %d times: %s", unknown, asked, asJSON(v))
			}
		})
	}
}

func TestFallback(t *testing.T) {
	sender := message.Address{User: "100", Host: "sms.example.com"}
	for name, c := range map[string]struct {
		change func(*plugin.Plan)
		answer func(*message.Message, plugin.Route) (plugin.Receipt, error)
		main   int // attempts
		backup int
		reason message.Reason
	}{
		"refused for good":    {nil, fails(message.Declined, false), 1, 1, ""},
		"tried often enough":  {func(p *plugin.Plan) { p.Retry.Attempts = 2 }, fails(message.Busy, true), 2, 1, ""},
		"for this reason":     {func(p *plugin.Plan) { p.Fallback.Reasons = []message.Reason{message.Declined} }, fails(message.Declined, false), 1, 1, ""},
		"not for this reason": {func(p *plugin.Plan) { p.Fallback.Reasons = []message.Reason{message.Gone} }, fails(message.Declined, false), 1, 0, message.Declined},
		"unbuildable":         {nil, fails(message.Unbuildable, false), 1, 1, ""},
		"no answer, by unknown": {func(p *plugin.Plan) {
			p.Retry.Unknown, p.Fallback.Reasons = plugin.UnknownFallback, []message.Reason{message.Gone}
		}, fails(message.NoAnswer, true), 1, 1, ""},
		"no answer is the end":   {func(p *plugin.Plan) { p.Retry.Unknown = plugin.UnknownFail }, fails(message.NoAnswer, true), 1, 0, message.NoAnswer},
		"the type doesn't go":    {func(p *plugin.Plan) { p.MIME = map[string][]string{"spare": {"text/html"}} }, fails(message.Declined, false), 1, 0, message.Declined},
		"there is no such thing": {func(p *plugin.Plan) { p.Fallback.Transports = []string{"smoke-signals"} }, fails(message.Declined, false), 1, 0, message.Declined},
		"now or never":           {func(p *plugin.Plan) { p.Store = 0 }, fails(message.Busy, true), 1, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(p *plugin.Plan) {
				p.Fallback = plugin.PlanFallback{Transports: []string{"spare"}, Sender: sender}
				if c.change != nil {
					c.change(p)
				}
			}
			onStage(t, change, func(t *testing.T, s *stage) {
				s.main.answer = c.answer
				v := s.ends(s.send(t, "alice", "bob", "x", func(a *plugin.Arrival) { a.Message.DisplayName = "Alice" }))
				main, backup := s.main.attempts(), s.backup.attempts()
				if len(main) != c.main || len(backup) != c.backup || v.Reason != c.reason || v.Attempts != c.main+c.backup {
					t.Fatalf("%d and %d attempts: %s", len(main), len(backup), asJSON(v))
				}
				records := s.audit.settled()
				if len(records) != 1 || records[0].Charged != (c.reason == "") || records[0].From != address("alice") {
					t.Errorf("charging was told %+v", records)
				}
				if c.backup == 0 {
					return
				}
				if backup[0].from != sender.String() || backup[0].name != "" || main[0].from != "alice@example.com" || main[0].name != "Alice" {
					t.Errorf("sent as %+v, then as %+v", main[0], backup[0])
				}
				if v.From != address("alice") || v.SentAs != sender || backup[0].reference == main[0].reference {
					t.Errorf("%s", asJSON(v))
				}
			})
		})
	}
}

// TestFallbackCountsAnew, also after a restart, and there is no second one.
func TestFallbackCountsAnew(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Retry.Attempts, p.Retry.Backoff = 2, []time.Duration{time.Second, time.Minute}
		p.Fallback.Transports = []string{"backup"}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		s.main.answer, s.backup.answer = fails(message.Busy, true), fails(message.Unavailable, true)
		id := s.send(t, "alice", "bob", "x")
		time.Sleep(1500 * time.Millisecond) // one attempt of the fallback
		s.restart()
		v := s.ends(id)
		if main, backup := len(s.main.attempts()), len(s.backup.attempts()); main != 2 || backup != 2 || v.Attempts != 4 || v.Reason != message.Unavailable {
			t.Errorf("%d and %d attempts: %s", main, backup, asJSON(v))
		}
		if left := rows(t, s.storage, "states"); len(left) != 0 {
			t.Errorf("%d rows are left", len(left))
		}
	})
}

// TestFallbackOfWhoIsNotThere: what goes at once or not at all goes by another
// way; what may wait waits.
func TestFallbackOfWhoIsNotThere(t *testing.T) {
	for store, want := range map[time.Duration]int{0: 1, time.Hour: 0} {
		change := func(p *plugin.Plan) {
			p.Transports, p.Store = []string{"door"}, store
			p.Fallback = plugin.PlanFallback{Transports: []string{"backup"}, Reasons: []message.Reason{message.Unavailable}}
		}
		onStage(t, change, func(t *testing.T, s *stage) {
			o, err := s.outcome("x")
			if err != nil || (o.State == plugin.OutcomeDelivered) != (want == 1) || len(s.backup.attempts()) != want {
				t.Errorf("store %s: %+v, %v, %d attempts", store, o, err, len(s.backup.attempts()))
			}
			// Behind one that waits, too.
			if o, err := s.outcome("y"); err != nil || (o.State == plugin.OutcomeDelivered) != (want == 1) {
				t.Errorf("store %s: %+v, %v", store, o, err)
			}
		})
	}
}

// TestFallbackBehindOneThatWaits: a lane that is asleep has no turn for it.
func TestFallbackBehindOneThatWaits(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Transports, p.Fallback.Transports = []string{"door"}, []string{"backup"}
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		wantOutcome(t, s.door.submit("alice", "bob", "waits"), plugin.OutcomeWaiting)
		wantOutcome(t, s.door.submit("alice", "bob", "now", expires(0)), plugin.OutcomeDelivered)
		if n := len(s.backup.attempts()); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestFallbackPassesWhoHasRefused: the device isn't asked again over the same
// transport, another one is.
func TestFallbackPassesWhoHasRefused(t *testing.T) {
	change := func(p *plugin.Plan) {
		p.Transports, p.Fallback.Transports = []string{"door"}, []string{"door"}
		p.Retry.Attempts = 1
	}
	onStage(t, change, func(t *testing.T, s *stage) {
		asked := map[string]int{}
		var mu sync.Mutex
		s.door.take = func(_ *message.Message, r plugin.Route) (plugin.Receipt, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.Binding.Device]++
			if r.Binding.Device == "phone" {
				return plugin.Receipt{}, message.Fail(message.Declined, "no")
			}
			return plugin.Receipt{}, message.FailForNow(message.Busy, "later")
		}
		if err := s.door.register(t.Context(), "bob", "phone", "tablet"); err != nil {
			t.Fatal(err)
		}
		if v := s.ends(s.send(t, "alice", "bob", "x")); v.Reason != message.Busy || asked["phone"] != 1 || asked["tablet"] != 2 {
			t.Errorf("asked %v: %s", asked, asJSON(v))
		}
	})
}

func TestStoreNothing(t *testing.T) {
	change := func(p *plugin.Plan) { p.Transports, p.Store = []string{"door"}, 0 }
	onStage(t, change, func(t *testing.T, s *stage) {
		o := wantOutcome(t, s.door.submit("alice", "bob", "x"), plugin.OutcomeFailed)
		if o.Failure.Reason != message.Unavailable || !o.Failure.Temporary {
			t.Errorf("%v", o.Failure)
		}
		if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
			t.Fatal(err)
		}
		wantOutcome(t, s.door.submit("alice", "bob", "y"), plugin.OutcomeDelivered)
		if got := s.door.bodies(); !slices.Equal(got, []string{"y"}) {
			t.Errorf("delivered %q", got)
		}
	})
}

func TestPlansThatArentSound(t *testing.T) {
	bad := message.Address{User: "a\r\nb", Host: "example.com"}
	for name, change := range map[string]func(*plugin.Plan){
		"sender":              func(p *plugin.Plan) { p.Rewrite.Sender = bad },
		"recipient":           func(p *plugin.Plan) { p.Rewrite.Recipient = bad },
		"sender of fallback":  func(p *plugin.Plan) { p.Fallback.Sender = bad },
		"no pause":            func(p *plugin.Plan) { p.Retry.Backoff = nil },
		"too many limits":     func(p *plugin.Plan) { p.Limits = make([]plugin.Limit, plugin.MaxLimits+1) },
		"a short window":      func(p *plugin.Plan) { p.Limits = []plugin.Limit{{Per: time.Millisecond}} },
		"routes without cost": func(p *plugin.Plan) { p.ExternalRouting, p.Charging.Mode = true, plugin.ChargeNone },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, change, func(t *testing.T, s *stage) {
				wantRefusal(t, s.door.submit("alice", "bob", "x"), message.PolicyFailed, true)
				if len(rows(t, s.storage, "messages"))+len(rows(t, s.storage, "test/holds")) != 0 {
					t.Error("something is kept or held")
				}
			})
		})
	}
}

func typing(a *plugin.Arrival) { a.Message.ContentType = "application/im-iscomposing+xml" }
