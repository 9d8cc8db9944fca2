package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/policies"
)

// TestQuestion: what a policy is told of a message.
func TestQuestion(t *testing.T) {
	zone := time.FixedZone("Somewhere/Else", 5*3600+1800)
	synctest.Test(t, func(t *testing.T) {
		var asked plugin.Question
		var text string
		policy := &testPolicy{asked: func(q plugin.Question, more plugin.Supply, _ *plugin.Plan) { asked, text = q, more.Text() }}
		s := alone(t, memory.Open(memory.NewDisk()), policy, func(p *pipeline.Parts) {
			p.Zone, p.Accounts = zone, knownBy{testAccounts{}}
		})
		if err := s.door.register(t.Context(), "bob", "phone", "tablet"); err != nil {
			t.Fatal(err)
		}
		s.send(t, "alice", "bob", strings.Repeat("grüße ", 30), func(a *plugin.Arrival) {
			a.Account.Attributes = map[string]string{"plan": "gold"}
			a.Account.Identities = append(a.Account.Identities, message.Address{User: "+447700900001"}, message.Address{User: "ACME"})
			a.Message.Missing = 2
			a.Message.ContentType = "Text/Plain;charset=utf-8"
		})
		want := plugin.Question{
			Message: plugin.QuestionMessage{ID: asked.Message.ID, Type: "text/plain", Class: "text", Size: 240, Segments: 2, Missing: 2},
			Sender: plugin.QuestionSender{
				Account: "alice", Address: "alice@example.com", User: "alice", Domain: "example.com", Number: "+447700900001", Local: true,
				Attributes: map[string]string{"plan": "gold"},
			},
			Recipient: plugin.QuestionRecipient{
				Address: "bob@example.com", User: "bob", Domain: "example.com", Local: true, Account: "bob",
				Attributes: map[string]string{"dnd": "yes"}, Registered: true, Devices: 2,
			},
			Transport: "door", Protocol: "door", Peer: strings.Repeat("grüße ", 30),
			Time:  time.Now().UTC(),
			Clock: plugin.Clock{Zone: "Somewhere/Else", Date: "2000-01-01", Time: "05:30:00", Weekday: "saturday", Hour: 5, Minute: 30},
		}
		if !reflect.DeepEqual(asked, want) {
			t.Errorf("got  %+v\nwant %+v", asked, want)
		}
		if text != strings.Repeat("grüße ", 30) {
			t.Errorf("the text is %q", text)
		}
		time.Sleep(90 * time.Minute)
		long := strings.Repeat("€", plugin.MaxQuestionText)
		wantRefusal(t, s.door.submit("alice", "?nobody", long), message.UnknownRecipient, false)
		if len(text) > plugin.MaxQuestionText || len(text) < plugin.MaxQuestionText-3 || !utf8.ValidString(text) {
			t.Errorf("a text of %d octets", len(text))
		}
		if asked.Clock.Time != "07:00:00" || asked.Recipient.Local || asked.Recipient.Account != "" || asked.Message.Segments != 216 {
			t.Errorf("%+v", asked)
		}
		s.send(t, "alice", "bob", "<b>", func(a *plugin.Arrival) { a.Message.ContentType = "text/html" })
		if text != "" || asked.Message.Segments != 0 {
			t.Errorf("%q, %d segments", text, asked.Message.Segments)
		}
	})
}

// knownBy has attributes.
type knownBy struct{ testAccounts }

func (k knownBy) Lookup(ctx context.Context, a message.Address) (plugin.Account, error) {
	account, err := k.testAccounts.Lookup(ctx, a)
	if err == nil {
		account.Attributes = map[string]string{"dnd": "yes"}
	}
	return account, err
}

// TestProductsTypes is the table of the product that we replace, under the lists
// that we ship: what may go over SIP, and what over SMPP. A typing notice is
// neither charged nor kept, whatever the plan says.
func TestProductsTypes(t *testing.T) {
	shipped := shippedMIME(t)
	const all = "text/plain message/cpim text/html application/im-iscomposing+xml application/x-acro-filetransfer+json"
	const text = "text/plain message/cpim"
	over := map[string]string{"sip": all, "smpp": text, "smpp-server": text} // which speaks SMPP too
	for transport, passing := range over {
		for mediaType := range strings.FieldsSeq(all) {
			passes := strings.Contains(" "+passing+" ", " "+mediaType+" ")
			t.Run(transport+" "+mediaType, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					policy := charged()
					policy.also(func(p *plugin.Plan) { p.MIME, p.Transports = shipped, []string{transport} })
					vendor, audit := &relay{}, &auditor{}
					s := alone(t, memory.Open(memory.NewDisk()), policy, func(p *pipeline.Parts) {
						audit.Charging = p.Charging
						p.Charging = audit
						p.Doors["sip"] = pipeline.Door{Transport: p.Doors["door"].Transport, Plugin: "sip", Protocol: "sip", Registrar: true}
						p.Doors["smpp"] = pipeline.Door{Transport: vendor, Plugin: "smpp", Protocol: "smpp"}
						p.Doors["smpp-server"] = pipeline.Door{Transport: vendor, Plugin: "smpp-server", Protocol: "smpp"}
						delete(p.Doors, "door")
					})
					s.door.gate = soloGate{s: s, instance: "sip"}
					if err := s.door.register(t.Context(), "bob", "phone"); err != nil {
						t.Fatal(err)
					}
					as := func(a *plugin.Arrival) { a.Message.ContentType = mediaType + "; charset=utf-8" }
					o, err := first(t, s.door.submit("alice", "bob", "x", as))
					if !passes {
						f, ok := errors.AsType[*message.Failure](err)
						if !ok || f.Reason != message.UnsupportedType || f.Temporary || strings.Join(f.Accept, " ") != passing {
							t.Errorf("%+v, %v", o, err)
						}
						return
					}
					if err != nil || o.State != plugin.OutcomeDelivered {
						t.Fatalf("%+v, %v", o, err)
					}
					notice := mediaType == "application/im-iscomposing+xml"
					if charged := len(audit.settled()) == 1; charged == notice {
						t.Errorf("charged: %t", charged)
					}
					if _, err := first(t, s.door.submit("alice", "carol", "y", as)); err != nil {
						t.Fatal(err)
					}
					if kept := len(rows(t, s.storage, "messages")) == 1; transport == "sip" && kept == notice {
						t.Errorf("kept: %t", kept)
					}
				})
			})
		}
	}
}

// shippedMIME reads the lists out of the policy that we ship.
func shippedMIME(t *testing.T) map[string][]string {
	t.Helper()
	source, err := policies.Files.ReadFile("onnet.rego")
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string][]string{}
	for _, plugin := range []string{"sip", "smpp"} {
		_, rest, found := strings.Cut(string(source), "plan.mime."+plugin+" := [")
		list, _, ends := strings.Cut(rest, "\n]")
		if !found || !ends {
			t.Fatalf("the policy that we ship has no list for %s", plugin)
		}
		for line := range strings.Lines(list) {
			if mediaType, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), `"`), `"`); ok {
				lists[plugin] = append(lists[plugin], mediaType)
			}
		}
	}
	return lists
}

func perSender(count int, per time.Duration) func(plugin.Question, plugin.Supply, *plugin.Plan) {
	return func(q plugin.Question, _ plugin.Supply, p *plugin.Plan) {
		p.Limits = []plugin.Limit{{Name: "per_sender", Key: "test/per_sender/" + q.Sender.Account, Count: count, Per: per}}
	}
}

// TestRateLimit: what is over it is refused until its window is over, for this
// sender; what was refused for another reason, or came twice, doesn't count.
func TestRateLimit(t *testing.T) {
	for _, per := range []time.Duration{time.Minute, time.Hour} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			s.policy.asked = perSender(2, per)
			s.parts.Metrics = plugin.NewMetrics()
			s.restart()
			if _, err := s.outcome("1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			s.outcome("1") // a repeat
			s.policy.also(func(p *plugin.Plan) { p.MIME = map[string][]string{"trunk": {"text/plain"}} })
			if _, err := s.outcome("x", func(a *plugin.Arrival) { a.Message.ContentType = "text/html" }); reason(err) != message.UnsupportedType {
				t.Fatal(err)
			}
			if _, err := s.outcome("2"); err != nil {
				t.Fatal(err)
			}
			_, err := s.outcome("3")
			if f := message.AsFailure(err); f.Reason != message.LimitReached || !f.Temporary || f.RetryAfter != per-10*time.Second {
				t.Fatalf("%+v", f)
			}
			if _, err := first(t, s.door.submit("carol", "bob", "x")); err != nil {
				t.Error("another sender", err)
			}
			if n := len(s.audit.requests); n != 3 {
				t.Errorf("charging was asked %d times", n)
			}
			if got := valueOf(s.parts.Metrics, "rate_limited_total"); got != 1 {
				t.Errorf("%s: %v are counted as limited", per, got)
			}
			if n := len(rows(t, s.storage, "windows")); (n == 2) != (per == time.Hour) {
				t.Errorf("%d windows are on disk", n)
			}
			s.parts.Metrics = nil
			s.restart()
			if _, err := s.outcome("4"); (reason(err) == message.LimitReached) != (per == time.Hour) {
				t.Errorf("after a restart: %v", err)
			}
			time.Sleep(per + time.Minute) // and a sweep
			if n := len(rows(t, s.storage, "windows")); n != 0 {
				t.Errorf("%d windows are left on disk", n)
			}
			if _, err := s.outcome("5"); err != nil {
				t.Error("in the next window", err)
			}
		})
	}
}

func valueOf(m *plugin.Metrics, name string) (sum float64) {
	for _, series := range m.Series() {
		if series.Name == name {
			sum += series.Value()
		}
	}
	return sum
}

// TestCounters: a policy reads what was counted, without the message at hand.
func TestCounters(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		var counted []int
		s.policy.asked = func(q plugin.Question, more plugin.Supply, p *plugin.Plan) {
			perSender(0, time.Minute)(q, more, p)
			counted = append(counted, more.Count(p.Limits[0]))
			if len(counted) == 3 {
				p.Processing = plugin.Discard
			}
		}
		for i := range 5 {
			if _, err := s.outcome(fmt.Sprint(i), func(a *plugin.Arrival) {
				if i == 1 {
					typing(a)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if want := []int{0, 1, 2, 3, 4}; !reflect.DeepEqual(counted, want) {
			t.Errorf("counted %v, want %v", counted, want)
		}
	})
}

// TestRefusedIsNotCounted: for want of funds, and because the storage fails.
func TestRefusedIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &failing{Storage: memory.Open(memory.NewDisk())}
		book := &testBook{}
		policy := charged()
		policy.asked = perSender(1, time.Hour)
		s := alone(t, storage, policy, func(p *pipeline.Parts) {
			charging, err := book.open(t.Context(), plugin.Env{Tables: p.Tables}, settings{})
			if err != nil {
				t.Fatal(err)
			}
			p.Charging = charging
		})
		book.refuse.Store(true)
		wantRefusal(t, s.door.submit("alice", "bob", "1"), message.InsufficientFunds, false)
		book.refuse.Store(false)
		storage.fail.Store(true)
		wantRefusal(t, s.door.submit("alice", "bob", "2"), message.StorageDown, true)
		wantRefusal(t, s.door.submit("alice", "bob", "3"), message.StorageDown, true)
		storage.fail.Store(false)
		time.Sleep(5 * time.Second)
		if _, err := first(t, s.door.submit("alice", "bob", "4")); err != nil {
			t.Errorf("the first that is accepted: %v", err)
		}
		wantRefusal(t, s.door.submit("alice", "bob", "5"), message.LimitReached, true)
	})
}

// failing is a storage that refuses writes for as long as the test wants.
type failing struct {
	plugin.Storage
	fail atomic.Bool
}

func (s *failing) Apply(ctx context.Context, f plugin.Fence, changes []plugin.Change) error {
	if s.fail.Load() {
		return fmt.Errorf("%w: no room", plugin.ErrNotApplied)
	}
	return s.Storage.Apply(ctx, f, changes)
}
