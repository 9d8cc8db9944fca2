package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// TestChargingMoments: what is charged when, for each way in which a message ends.
func TestChargingMoments(t *testing.T) {
	promised := func(*message.Message, plugin.Route) (plugin.Receipt, error) {
		return plugin.Receipt{PeerIDs: []string{"1"}}, nil
	}
	silent := func(*message.Message, plugin.Route) (plugin.Receipt, error) { return plugin.Receipt{}, nil }
	yes, no := plugin.Status{Delivered: true}, plugin.Status{Reason: message.Undelivered}
	for name, c := range map[string]struct {
		answer func(*message.Message, plugin.Route) (plugin.Receipt, error)
		report *plugin.Status
		// whether it is charged on acceptance, on hand-over, on delivery
		charged [3]bool
	}{
		"arrived":               {taken, nil, [3]bool{true, true, true}},
		"refused":               {fails(message.Declined, false), nil, [3]bool{true, false, false}},
		"never reported":        {promised, nil, [3]bool{true, true, false}},
		"reported as delivered": {promised, &yes, [3]bool{true, true, true}},
		"reported as failed":    {promised, &no, [3]bool{true, true, false}},
		"nobody will report":    {silent, nil, [3]bool{true, true, false}},
	} {
		for i, when := range []plugin.ChargingMoment{plugin.OnAcceptance, plugin.OnHandover, plugin.OnDelivery} {
			for _, restarted := range []bool{false, true} {
				t.Run(name+", "+string(when), func(t *testing.T) {
					onStage(t, func(p *plugin.Plan) { p.Charging.When = when }, func(t *testing.T, s *stage) {
						s.main.answer = c.answer
						id := s.send(t, "alice", "bob", "x")
						if restarted {
							s.restart()
						}
						if c.report != nil {
							if err := s.Pipeline.Report(t.Context(), "main", "1", *c.report); err != nil {
								t.Fatal(err)
							}
						}
						s.ends(id)
						records := s.audit.settled()
						if len(records) != 1 || records[0].Charged != c.charged[i] || records[0].Key != id {
							t.Errorf("charging was told %+v", records)
						}
						if paid := len(rows(t, s.storage, "test/paid")) == 1; paid != c.charged[i] {
							t.Errorf("paid: %t", paid)
						}
						if left := len(rows(t, s.storage, "test/holds")) + len(rows(t, s.storage, "outbox")); left != 0 {
							t.Errorf("%d rows are left", left)
						}
					})
				})
			}
		}
	}
}

// TestPaidOnAcceptance: what waits is paid, and stays so when it is cancelled.
func TestPaidOnAcceptance(t *testing.T) {
	change := func(p *plugin.Plan) { p.Transports, p.Charging.When = []string{"door"}, plugin.OnAcceptance }
	onStage(t, change, func(t *testing.T, s *stage) {
		id := s.send(t, "alice", "bob", "x")
		if records := s.audit.settled(); len(records) != 1 || !records[0].Charged || records[0].Transport != "" {
			t.Errorf("charging was told %+v", records)
		}
		if err := s.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if n := len(s.audit.settled()); n != 1 {
			t.Errorf("charging was told %d times", n)
		}
	})
}

// unsure is a storage that takes writes and says that it didn't, and whose outbox
// can't be read, for as long as the test wants.
type unsure struct {
	plugin.Storage
	late, unreadable atomic.Bool
}

func (s *unsure) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	err := s.Storage.Apply(ctx, f, changes)
	if s.late.Load() {
		return errors.New("no answer")
	}
	return err
}

func (s *unsure) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if table == "outbox" && s.unreadable.Load() {
		return nil, errors.New("no answer")
	}
	return s.Storage.Scan(ctx, table, from, to, n)
}

// TestPaidIsWhatIsAccepted: the outbox is read while it holds the record of a
// message that is then refused, since nobody knew whether it was on disk.
func TestPaidIsWhatIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage, audit := &unsure{Storage: memory.Open(memory.NewDisk())}, &auditor{}
		storage.unreadable.Store(true)
		policy := charged()
		policy.also(func(p *plugin.Plan) { p.Charging.When = plugin.OnAcceptance })
		s := alone(t, storage, policy, func(p *pipeline.Parts) {
			audit.Charging = p.Charging
			p.Charging = audit
		})
		storage.late.Store(true)
		ticket := s.door.submit("alice", "bob", "x")
		time.Sleep(time.Second)
		if n := len(rows(t, storage.Storage, "outbox")); n != 1 {
			t.Fatalf("%d records are on disk", n)
		}
		storage.unreadable.Store(false)
		time.Sleep(2 * time.Second) // it is read
		if records := audit.settled(); len(records) != 0 {
			t.Errorf("charging was told %+v", records)
		}
		time.Sleep(5 * time.Second)
		storage.late.Store(false)
		wantRefusal(t, ticket, message.StorageDown, true)
		time.Sleep(5 * time.Second)
		if records := audit.settled(); len(records) != 1 || records[0].Charged {
			t.Errorf("charging was told %+v", records)
		}
		if n := len(rows(t, storage.Storage, "outbox")) + len(rows(t, storage.Storage, "test/holds")) + len(rows(t, storage.Storage, "test/paid")); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if _, err := first(t, s.door.submit("alice", "bob", "x")); err != nil {
			t.Fatal(err)
		}
		if n := len(audit.settled()); n != 2 || len(rows(t, storage.Storage, "test/paid")) != 1 {
			t.Errorf("charging was told %d times", n)
		}
	})
}

func TestExternalRouting(t *testing.T) {
	routes := []plugin.Route{{Transport: "main", Address: "a"}, {Transport: "backup", Address: "b"}}
	wanted := func(p *plugin.Plan) { p.ExternalRouting, p.Transports = true, []string{"nothing-there"} }
	html := func(a *plugin.Arrival) { a.Message.ContentType = "text/html" }
	notHTML := func(p *plugin.Plan) {
		p.MIME = map[string][]string{"trunk": {"text/plain"}, "spare": {"text/plain", "x/y"}}
	}
	for name, c := range map[string]struct {
		routes       []plugin.Route
		change       func(*plugin.Plan)
		submit       func(*plugin.Arrival)
		main, backup int
		refusal      message.Reason
		accept       []string
	}{
		"in order":                          {routes, wanted, nil, 1, 0, "", nil},
		"not asked for":                     {routes[1:], nil, nil, 1, 0, "", nil},
		"over what isn't there":             {[]plugin.Route{{Transport: "gone"}, routes[1]}, wanted, nil, 0, 1, "", nil},
		"over what needs a binding":         {[]plugin.Route{{Transport: "door"}, routes[1]}, wanted, nil, 0, 1, "", nil},
		"none":                              {nil, wanted, nil, 0, 0, message.UnknownRecipient, nil},
		"over nothing that is there":        {[]plugin.Route{{Transport: "gone"}}, wanted, nil, 0, 0, message.ChargingFailed, nil},
		"the type goes nowhere":             {routes, func(p *plugin.Plan) { wanted(p); notHTML(p) }, html, 0, 0, message.UnsupportedType, []string{"text/plain"}},
		"the type goes over the second one": {routes, func(p *plugin.Plan) { wanted(p); p.MIME = map[string][]string{"trunk": {"text/plain"}} }, html, 0, 1, "", nil},
		"a typing notice isn't routed":      {routes, wanted, typing, 0, 0, message.UnsupportedType, nil},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, c.change, func(t *testing.T, s *stage) {
				s.audit.routes = c.routes
				submit := func(a *plugin.Arrival) {
					if c.submit != nil {
						c.submit(a)
					}
				}
				o, err := first(t, s.door.submit("alice", "?elsewhere", "x", submit))
				if c.refusal == "" && (err != nil || o.State != plugin.OutcomeDelivered) {
					t.Fatalf("%+v, %v", o, err)
				}
				if f, ok := errors.AsType[*message.Failure](err); c.refusal != "" && (!ok || f.Reason != c.refusal || !slices.Equal(f.Accept, c.accept)) {
					t.Fatalf("%+v, %v, want %s %v", o, err, c.refusal, c.accept)
				}
				if main, backup := len(s.main.attempts()), len(s.backup.attempts()); main != c.main || backup != c.backup {
					t.Errorf("%d and %d attempts", main, backup)
				}
				s.audit.settled()
				if n := len(rows(t, s.storage, "test/holds")); n != 0 {
					t.Errorf("%d reservations stand", n)
				}
				for _, r := range s.audit.requests {
					if r.Routing != (c.change != nil) {
						t.Errorf("charging was asked %+v", r)
					}
				}
			})
		})
	}
}

// TestRoutesThenFallback: when all routes have refused.
func TestRoutesThenFallback(t *testing.T) {
	change := func(p *plugin.Plan) { p.ExternalRouting, p.Fallback.Transports = true, []string{"backup"} }
	onStage(t, change, func(t *testing.T, s *stage) {
		s.audit.routes = []plugin.Route{{Transport: "main", Address: "a"}, {Transport: "main", Address: "b"}}
		s.main.answer = fails(message.Declined, false)
		v := s.ends(s.send(t, "alice", "bob", "x"))
		if main, backup := s.main.attempts(), s.backup.attempts(); len(main) != 2 || len(backup) != 1 || v.Reason != "" || backup[0].address != "" {
			t.Errorf("%+v, then %+v: %s", main, backup, asJSON(v))
		}
	})
}
