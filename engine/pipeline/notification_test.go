package pipeline_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// What senders ask for in a message/cpim.
const (
	positive = "positive-delivery"
	negative = "negative-delivery"
	both     = "positive-delivery, negative-delivery, display"
)

// enveloped puts a message into a message/cpim, as clients do. asks may be empty.
func enveloped(asks, contentType string) func(*plugin.Arrival) {
	return func(a *plugin.Arrival) {
		m := a.Message
		name, _, _ := strings.Cut(string(m.Body), "\r")
		head := fmt.Sprintf("From: <sip:%s>\r\nTo: <sip:%s>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: of %s\r\n", m.From, m.Recipient, name)
		if asks != "" {
			head += "imdn.Disposition-Notification: " + asks + "\r\n"
		}
		m.ContentType = content.TypeCPIM
		m.Body = fmt.Appendf(nil, "%s\r\nContent-Type: %s\r\n\r\n%s", head, contentType, m.Body)
	}
}

func asks(what string) func(*plugin.Arrival) { return enveloped(what, "text/plain") }

// imdnOf is a notification about the message of that text, from its recipient's client.
func imdnOf(text, status string) string {
	imdn := content.IMDN{MessageID: "of " + text, DateTime: time.Unix(1, 0), Status: status}
	return string(imdn.Append(nil))
}

// clients answer for all contacts, each as its name says, and keep what notifications
// they get.
type clients struct {
	mu       sync.Mutex
	got      []message.Message
	to       []string // the contacts
	vanished bool     // the contact of that name, once it has been silent
}

func (c *clients) take(ctx context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	if m.Class == message.Notification {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got, c.to = append(c.got, *m), append(c.to, r.Transport+" "+r.Binding.Contact)
		return plugin.Receipt{Final: true}, nil
	}
	switch kind, _, _ := strings.Cut(r.Binding.Contact, " "); kind {
	case "vanishes":
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.vanished {
			return plugin.Receipt{}, message.FailForNow(message.Unavailable, "its flow is gone")
		}
		c.vanished = true
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "no")
	case "plain":
		return plugin.Receipt{Final: true, Unwrapped: true}, nil
	case "esme":
		return plugin.Receipt{PeerIDs: []string{"p"}, Unwrapped: true}, nil
	case "silent-esme":
		return plugin.Receipt{Unwrapped: true}, message.FailForNow(message.NoAnswer, "no")
	case "mute-esme":
		return plugin.Receipt{Unwrapped: true}, nil
	case "proxy":
		return plugin.Receipt{PeerIDs: []string{"p"}}, nil
	case "refuses":
		return plugin.Receipt{}, message.Fail(message.Gone, "no")
	case "busy":
		return plugin.Receipt{}, message.FailForNow(message.Busy, "no")
	case "silent":
		return plugin.Receipt{}, message.FailForNow(message.NoAnswer, "no")
	case "late":
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	}
	return plugin.Receipt{Final: true}, nil
}

// statuses are what the notifications say that have arrived, and about what.
func (c *clients) statuses(t *testing.T) (statuses []string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.got {
		inner := m.Body
		if m.ContentType == content.TypeCPIM {
			_, inner, _ = content.Unwrap(m.Body)
		}
		imdn, err := content.ParseIMDN(inner)
		if err != nil || imdn.Kind != content.Delivery {
			t.Fatalf("%s: %v", m.Body, err)
		}
		statuses = append(statuses, imdn.MessageID+": "+imdn.Status)
	}
	return statuses
}

// withClients runs a test in which alice is registered, on a disk.
func withClients(t *testing.T, policy *testPolicy, test func(*testing.T, *solo, *clients, func() *solo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk, c := memory.NewDisk(), &clients{}
		open := func() *solo {
			return alone(t, memory.Open(disk), policy, func(p *pipeline.Parts) {
				door := p.Doors["door"].Transport.(*testDoor)
				door.taking = c.take // before anything is sent
				p.Doors["other"] = pipeline.Door{Transport: door, Plugin: "door", Protocol: "door", Registrar: true}
				p.Doors["else"] = pipeline.Door{Transport: door, Plugin: "else", Protocol: "else", Registrar: true}
			})
		}
		s := open()
		s.door.register(t.Context(), "alice", "alice's")
		test(t, s, c, func() *solo {
			s.stop()
			return open()
		})
	})
}

// TestNotifications: the gateway gives one where no client does, and nobody has been
// told in the answer to the message.
func TestNotifications(t *testing.T) {
	report := func(s *solo, delivered bool) {
		_ = s.door.gate.Report(context.Background(), "p", plugin.Status{Delivered: delivered, Reason: message.Gone})
	}
	arrives := func(_ *testing.T, s *solo) { report(s, true) }
	breaks := func(_ *testing.T, s *solo) { report(s, false) }
	registers := func(contacts ...string) func(*testing.T, *solo) {
		return func(t *testing.T, s *solo) {
			time.Sleep(30 * time.Second)
			s.door.register(t.Context(), "bob", contacts...)
		}
	}
	expires := func(t *testing.T, s *solo) {
		time.Sleep(2 * time.Hour)
		s.door.register(t.Context(), "alice", "alice's")
	}
	accepted := func(p *plugin.Plan) { p.Answer = plugin.AnswerAccepted }
	for name, c := range map[string]struct {
		bob  string // contacts
		asks string
		plan func(*plugin.Plan)
		then func(*testing.T, *solo)
		want string // empty: none
	}{
		"got the text":                          {bob: "plain", asks: both, want: "delivered"},
		"got the text, positive alone":          {bob: "plain", asks: positive, want: "delivered"},
		"got the text, negative alone":          {bob: "plain", asks: negative},
		"got the text, display alone":           {bob: "plain", asks: "display"},
		"got the text, nothing asked":           {bob: "plain"},
		"its client notifies":                   {bob: "phone", asks: both},
		"first offline":                         {asks: both, then: registers("plain"), want: "delivered"},
		"first offline, its client notifies":    {asks: both, then: registers("phone")},
		"all devices got the text":              {bob: "plain 1,plain 2", asks: both, want: "delivered"},
		"one device notifies":                   {bob: "plain,phone", asks: both},
		"one device may notify":                 {bob: "plain,silent", asks: both},
		"one device is late":                    {bob: "plain,late", asks: both},
		"one device refuses":                    {bob: "plain,refuses", asks: both, want: "delivered"},
		"one device was silent before":          {bob: "silent", asks: both, then: registers("plain")},
		"one device was silent and is gone":     {bob: "vanishes", asks: both, then: registers("vanishes", "plain")},
		"the ESME was silent before":            {bob: "silent-esme", asks: both, then: registers("plain"), want: "delivered"},
		"reported":                              {bob: "esme", asks: both, then: arrives, want: "delivered"},
		"reported, negative alone":              {bob: "esme", asks: negative, then: arrives},
		"reported failed":                       {bob: "esme", asks: both, then: breaks, want: "failed"},
		"reported failed, positive alone":       {bob: "esme", asks: positive, then: breaks},
		"reported, and a device was silent":     {bob: "esme,silent", asks: both, then: arrives},
		"reported by whom it was sent on whole": {bob: "proxy", asks: both, then: arrives},
		"failed there":                          {bob: "proxy", asks: both, then: breaks, want: "failed"},
		"nobody will tell":                      {bob: "mute-esme", asks: both, want: "error"},
		"nobody will tell, positive alone":      {bob: "mute-esme", asks: positive},
		"refused in time to say so":             {bob: "refuses", asks: both},
		"refused, and nobody waits to hear":     {bob: "refuses", asks: both, plan: accepted, want: "failed"},
		"refused later":                         {bob: "busy", asks: both, then: registers("refuses"), plan: func(p *plugin.Plan) { p.Retry.Attempts = 10 }, want: "failed"},
		"expired":                               {bob: "busy", asks: both, then: expires, want: "failed"},
		"expired, positive alone":               {bob: "busy", asks: positive, then: expires},
		"cancelled": {asks: both, then: func(t *testing.T, s *solo) {
			if err := s.Cancel(t.Context(), s.history(t)[0].ID); err != nil {
				t.Error(err)
			}
		}, want: "failed"},
		"discarded": {bob: "plain", asks: both, plan: func(p *plugin.Plan) { p.Processing = plugin.Discard }},
	} {
		for _, restarts := range []bool{false, true} {
			if restarts && c.then == nil {
				continue
			}
			t.Run(fmt.Sprint(name, " ", restarts), func(t *testing.T) {
				policy := charged()
				policy.asked = func(q plugin.Question, _ plugin.Supply, p *plugin.Plan) {
					if c.plan != nil {
						c.plan(p)
					}
				}
				withClients(t, policy, func(t *testing.T, s *solo, at *clients, restart func() *solo) {
					if c.bob != "" {
						s.door.register(t.Context(), "bob", strings.Split(c.bob, ",")...)
					}
					public := s.hand(t, "alice", "bob", "hello", asks(c.asks))
					time.Sleep(11 * time.Second)
					if restarts {
						s = restart()
					}
					if c.then != nil {
						c.then(t, s)
					}
					time.Sleep(5 * time.Minute)
					synctest.Wait()
					want := []string{"of hello: " + c.want}
					if c.want == "" {
						want = nil
					}
					if got := at.statuses(t); !slices.Equal(got, want) {
						t.Errorf("%q, want %q", got, want)
					}
					if left := rows(t, s.storage, "messages"); len(left) > 0 {
						t.Errorf("%d messages wait", len(left))
					}
					if paid := rows(t, s.storage, "test/paid"); len(paid) > 1 {
						t.Errorf("%d payments", len(paid))
					}
					if c.want != "" {
						m := at.got[0]
						if m.From != address("bob") || m.Recipient != address("alice") || m.Report != 0 || m.Hops != 70 || m.ContentType != content.TypeCPIM {
							t.Errorf("%+v", m)
						}
						if _, err := s.Find(t.Context(), "alice", m.PublicID); reason(err) != message.UnknownMessage {
							t.Errorf("it is found as a message: %v", err)
						}
						s.found(t, "alice", public)
					}
				})
			})
		}
	}
}

// TestNotificationGoesToEveryDevice that the sender has, at whichever instance of the
// protocol that it spoke; and waits for them, as long as the operator says.
func TestNotificationGoesToEveryDevice(t *testing.T) {
	withClients(t, charged(), func(t *testing.T, s *solo, c *clients, _ func() *solo) {
		for _, instance := range []string{"other", "else"} {
			r := plugin.Registration{Account: account("alice"), AOR: address("alice"), CallID: instance, CSeq: 1, Bindings: []plugin.Binding{
				{Contact: "alice's " + instance, Device: instance, Expires: time.Now().Add(time.Hour)},
			}}
			if _, err := s.Pipeline.Register(t.Context(), instance, r); err != nil {
				t.Fatal(err)
			}
		}
		s.door.register(t.Context(), "bob", "plain")
		s.hand(t, "alice", "bob", "hello", asks(both))
		slices.Sort(c.to)
		if want := []string{"door alice's", "other alice's other"}; !slices.Equal(c.to, want) {
			t.Errorf("it went to %q, want %q", c.to, want)
		}
		for from, life := range map[string]time.Duration{"carol": 0, "dave": 2 * time.Minute} {
			s.Bound(pipeline.Limits{}, 0, life)
			s.hand(t, from, "bob", "hello", asks(both))
			page, err := s.List(t.Context(), pipeline.Filter{State: spool.StateWaiting, To: address(from)})
			if err != nil || len(page.Messages) != 1 {
				t.Fatalf("%+v, %v", page, err)
			}
			if v := page.Messages[0]; v.Expiry.Sub(v.Received) != cmp.Or(life, 168*time.Hour) {
				t.Errorf("%+v", v)
			}
		}
	})
}

// TestNotificationIsOne: where we give it, no device that gets the message later is
// asked for it.
func TestNotificationIsOne(t *testing.T) {
	for first, want := range map[string]string{"plain": "hello", "phone": "message/cpim"} {
		policy := charged()
		policy.also(func(p *plugin.Plan) { p.Devices = plugin.AllDevices })
		withClients(t, policy, func(t *testing.T, s *solo, c *clients, _ func() *solo) {
			s.door.register(t.Context(), "bob", "second")
			time.Sleep(2 * time.Hour)
			s.door.register(t.Context(), "alice", "alice's")
			s.door.register(t.Context(), "bob", first)
			s.hand(t, "alice", "bob", "hello", asks(both))
			s.door.register(t.Context(), "bob", "second")
			time.Sleep(time.Minute)
			synctest.Wait()
			copied := ""
			for _, sent := range s.door.sent {
				if sent.contact == "second" {
					copied = sent.body
				}
			}
			if isText := copied == "hello"; isText != (want == "hello") || copied == "" {
				t.Errorf("%s: the second device got %q", first, copied)
			}
			if got := len(c.statuses(t)); got != map[string]int{"plain": 1}[first] {
				t.Errorf("%s: %d notifications", first, got)
			}
		})
	}
}

// TestNotificationOfStrangers: who is none of ours is told if an instance leads back
// to them.
func TestNotificationOfStrangers(t *testing.T) {
	for instance, want := range map[string]int{"door": 0, "trunk": 1} {
		withClients(t, charged(), func(t *testing.T, s *solo, _ *clients, _ func() *solo) {
			s.door.register(t.Context(), "bob", "plain")
			a := plugin.Arrival{
				Message: &message.Message{From: address("?stranger"), Recipient: address("bob"), Body: []byte("hello")},
				Account: plugin.Account{ID: instance, Identities: []message.Address{address("?stranger")}}, Key: "k",
			}
			asks(both)(&a)
			if o, err := first(t, s.Submit(instance, a)); err != nil || o.State != plugin.OutcomeDelivered {
				t.Fatal(o, err)
			}
			synctest.Wait()
			if got := len(s.door.trunk.sent); got != want {
				t.Errorf("%s: %d notifications", instance, got)
			}
			if left := rows(t, s.storage, "messages"); len(left) > 0 {
				t.Errorf("%d messages wait", len(left))
			}
		})
	}
}

// TestClientsNotify: what clients tell each other is kept, whatever they say of its
// life, isn't charged, isn't routed by charging, and is told of by nobody.
func TestClientsNotify(t *testing.T) {
	typingInside := enveloped(both, content.TypeComposing)
	inside := enveloped(both, content.TypeIMDN)
	bare := func(a *plugin.Arrival) { a.Message.ContentType = content.TypeIMDN }
	none := time.Duration(0)
	atOnce := func(a *plugin.Arrival) { a.Message.Expires, a.Message.Report = &none, message.ReportEnd }
	var asked plugin.Question
	policy := charged()
	policy.asked = func(q plugin.Question, _ plugin.Supply, p *plugin.Plan) {
		asked = q
		p.Charging.When, p.Store = plugin.OnAcceptance, time.Minute
		p.ExternalRouting = q.Recipient.User == "routed"
		if q.Recipient.User == "rejects" {
			p.Processing = plugin.Reject
		}
	}
	withClients(t, policy, func(t *testing.T, s *solo, c *clients, _ func() *solo) {
		s.door.register(t.Context(), "bob", "plain")
		body := imdnOf("hello", content.StatusDelivered)
		for name, form := range map[string]func(*plugin.Arrival){"inside": inside, "bare": bare} {
			inner := map[string]string{"inside": content.TypeIMDN}[name]
			key := func(a *plugin.Arrival) { a.Key += name }
			wantOutcome(t, s.door.submit("bob", "alice", body, form, atOnce, key), plugin.OutcomeDelivered)
			if m := asked.Message; m.Class != "notification" || m.Inner != inner {
				t.Errorf("%s: the policy was asked about %+v", name, m)
			}
			wantOutcome(t, s.door.submit("bob", "carol", body, form, atOnce, key), plugin.OutcomeWaiting)
			wantRefusal(t, s.door.submit("bob", "routed", body, form, key), message.UnsupportedType, false)
			wantRefusal(t, s.door.submit("bob", "rejects", body, form, key), message.Rejected, false)
			wantOutcome(t, s.door.submit("alice", "bob", body, form, key), plugin.OutcomeDelivered) // unwrapped, and asking
		}
		wantOutcome(t, s.door.submit("alice", "bob", "typing", typingInside), plugin.OutcomeDelivered)
		if m := asked.Message; m.Class != "composing" || m.Inner != content.TypeComposing {
			t.Errorf("the policy was asked about %+v", m)
		}
		wantOutcome(t, s.door.submit("alice", "carol", "typing", typingInside), plugin.OutcomeWaiting)
		time.Sleep(30 * time.Minute)
		if paid := rows(t, s.storage, "test/paid"); len(paid) > 0 {
			t.Errorf("%d payments", len(paid))
		}
		if waiting := s.history(t); len(rows(t, s.storage, "messages")) != 2 || waiting[len(waiting)-1].Expiry.Sub(waiting[len(waiting)-1].Received) != pipeline.DefaultNotifications {
			t.Errorf("%d wait", len(rows(t, s.storage, "messages")))
		}
		s.door.register(t.Context(), "carol", "carol's")
		time.Sleep(time.Minute)
		if got := c.statuses(t); len(got) != 6 || len(rows(t, s.storage, "messages")) > 0 {
			t.Errorf("%q", got)
		}
	})
}
