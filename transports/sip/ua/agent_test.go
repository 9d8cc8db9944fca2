package ua

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

const domain = "sip.example.com"

var passwords = map[string]string{"1001": "one", "1002": "two", "a b": "three"}

// quick makes a transaction give up after 640 ms.
var quick = timers{t1: 10 * time.Millisecond, t2: 80 * time.Millisecond, ping: 5 * time.Millisecond, pong: 2 * time.Second}

func user(name string) message.Address { return message.Address{User: name, Host: domain} }

func fake(t *testing.T, c fakesip.Config) *fakesip.Server {
	t.Helper()
	c.Domain, c.Accounts = domain, passwords
	return fakesip.Start(t, c)
}

func dial(t *testing.T, s *fakesip.Server, name string, handle func(Incoming) bool) *Agent {
	t.Helper()
	return dialOver(t, Config{UDP: s.Address()}, name, handle)
}

// dialOver dials where c says.
func dialOver(t *testing.T, c Config, name string, handle func(Incoming) bool) *Agent {
	t.Helper()
	c.Address, c.Password, c.Handle, c.timers = user(name), passwords[name], handle, quick
	a, err := Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// inbox returns a handler and where what it was given arrives.
func inbox() (func(Incoming) bool, chan Incoming) {
	arrived := make(chan Incoming, 100)
	return func(m Incoming) bool {
		arrived <- m
		return true
	}, arrived
}

func register(t *testing.T, a *Agent) {
	t.Helper()
	if _, err := a.Register(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, a *Agent, to, body string) Result {
	t.Helper()
	r, err := a.Message(t.Context(), user(to), "text/plain", []byte(body), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMessageReachesTheOtherAgent(t *testing.T) {
	for _, c := range []struct {
		name   string
		config fakesip.Config
	}{
		{"MD5", fakesip.Config{Algorithms: []string{"MD5"}}},
		{"SHA-256", fakesip.Config{Algorithms: []string{"SHA-256"}}},
		{"the first supported", fakesip.Config{Algorithms: []string{"TOMORROW-1", "SHA-256", "MD5"}}},
		{"a nonce for one request", fakesip.Config{NonceUses: 1}},
		{"IPv6", fakesip.Config{Host: "::1"}},
		{"every third datagram lost", fakesip.Config{DropRequest: func(n int) bool { return n%3 == 0 }}},
		{"every third response lost", fakesip.Config{DropResponse: func(n int) bool { return n%3 == 0 }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fake(t, c.config)
			handle, arrived := inbox()
			bob, alice := dial(t, s, "1002", handle), dial(t, s, "1001", nil)
			register(t, bob)
			for i := range 3 {
				text := fmt.Sprintf("hello %d", i)
				if r := send(t, alice, "1002", text); r.Code != 200 {
					t.Fatalf("got %+v, want 200", r)
				}
				m := <-arrived
				if string(m.Body) != text || m.From != user("1001") || m.To != user("1002") || m.ContentType != "text/plain" {
					t.Errorf("got %+v", m)
				}
			}
			if len(arrived) > 0 {
				t.Errorf("%d messages were shown twice", len(arrived))
			}
		})
	}
}

func TestNonceIsUsedAgain(t *testing.T) {
	s := fake(t, fakesip.Config{})
	alice := dial(t, s, "1001", nil)
	for range 5 {
		send(t, alice, "1002", "hello")
	}
	if got := s.Requests("MESSAGE"); got != 6 {
		t.Errorf("5 messages took %d requests, want 6: one challenge for all", got)
	}
}

func TestMessagesWaitForTheRegistration(t *testing.T) {
	s := fake(t, fakesip.Config{})
	handle, arrived := inbox()
	alice, bob := dial(t, s, "1001", nil), dial(t, s, "1002", handle)
	if r := send(t, alice, "1002", "later"); r.Code != 202 {
		t.Fatalf("got %+v, want 202", r)
	}
	register(t, bob)
	if m := <-arrived; string(m.Body) != "later" {
		t.Errorf("got %q", m.Body)
	}
}

func TestRepeatedDeliveriesAreShownOnce(t *testing.T) {
	always := func(int) bool { return true }
	s := fake(t, fakesip.Config{Repeat: always, Duplicate: always})
	handle, arrived := inbox()
	alice, bob := dial(t, s, "1001", nil), dial(t, s, "1002", handle)
	register(t, bob)
	send(t, alice, "1002", "first")
	send(t, alice, "1002", "second") // behind all repetitions of the first, in one socket
	for _, want := range []string{"first", "second"} {
		if m := <-arrived; string(m.Body) != want {
			t.Errorf("got %q, want %q", m.Body, want)
		}
	}
}

func TestWhoDoesNotHandleRefuses(t *testing.T) {
	s := fake(t, fakesip.Config{})
	alice, bob := dial(t, s, "1001", nil), dial(t, s, "1002", nil)
	register(t, bob)
	if r := send(t, alice, "1002", "hello"); r.Code != 480 {
		t.Errorf("got %+v, want 480", r)
	}
}

func TestUnregister(t *testing.T) {
	s := fake(t, fakesip.Config{})
	bob := dial(t, s, "1002", nil)
	register(t, bob)
	if contact, ok := s.Contact("1002"); !ok || contact != bob.Local() {
		t.Errorf("registered at %s, want %s", contact, bob.Local())
	}
	if err := bob.Unregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Contact("1002"); ok {
		t.Error("still registered")
	}
}

func TestRegistrationIsRenewed(t *testing.T) {
	s := fake(t, fakesip.Config{Granted: 1})
	bob := dial(t, s, "1002", nil)
	granted, err := bob.Register(t.Context(), time.Hour)
	if err != nil || granted != time.Second {
		t.Fatalf("granted %s, %v, want 1s", granted, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.OnRegister("1002", cancel)
	bob.KeepRegistered(ctx, granted, func(err error) { t.Error(err) })
}

func TestWrongPassword(t *testing.T) {
	s := fake(t, fakesip.Config{})
	a, err := Dial(t.Context(), Config{Address: user("1001"), Password: "wrong", UDP: s.Address(), timers: quick})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if r := send(t, a, "1002", "hello"); r.Code != 401 {
		t.Errorf("got %+v, want 401", r)
	}
	if got := s.Requests("MESSAGE"); got != 2 {
		t.Errorf("asked %d times, want 2: another try can't help", got)
	}
	var refused *RefusedError
	if _, err := a.Register(t.Context(), time.Hour); !errors.As(err, &refused) || refused.Result.Code != 401 {
		t.Errorf("got %v, want a refusal with 401", err)
	}
}

func TestFinalResponseIsRead(t *testing.T) {
	s := fake(t, fakesip.Config{Answer: func(string) (int, string, []string) {
		return 415, "Unsupported", []string{"Accept: text/plain", "Accept: text/html", "Retry-After: 5 (soon);x=1"}
	}})
	got := send(t, dial(t, s, "1001", nil), "1002", "hello")
	want := Result{Code: 415, Reason: "Unsupported", Accept: "text/plain, text/html", RetryAfter: 5 * time.Second}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSilence(t *testing.T) {
	s := fake(t, fakesip.Config{DropRequest: func(int) bool { return true }})
	a := dial(t, s, "1001", nil)
	if _, err := a.Message(t.Context(), user("1002"), "text/plain", nil, Options{}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := a.Message(ctx, user("1002"), "text/plain", nil, Options{}); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrNoAnswer because of the deadline", err)
	}
}

func TestNobodyListens(t *testing.T) {
	a, err := Dial(t.Context(), Config{Address: user("1001"), UDP: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_, err = a.Register(t.Context(), time.Hour)
	if err == nil || !strings.Contains(err.Error(), "nobody listens at 127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}

func TestMessageRefusesWhatCannotBeSent(t *testing.T) {
	a := dial(t, fake(t, fakesip.Config{}), "1001", nil)
	for _, c := range []struct {
		name        string
		to          message.Address
		contentType string
		body        []byte
	}{
		{"line break in a type", user("1002"), "text/plain\r\nX: y", nil},
		{"no type", user("1002"), "", nil},
		{"line break in an address", user("1002\r\n"), "text/plain", nil},
		{"too large", user("1002"), "text/plain", make([]byte, 65_000)},
	} {
		if r, err := a.Message(t.Context(), c.to, c.contentType, c.body, Options{}); err == nil {
			t.Errorf("%s: sent, %+v", c.name, r)
		}
	}
}

func TestUserPartIsEscaped(t *testing.T) {
	s := fake(t, fakesip.Config{Answer: func(to string) (int, string, []string) {
		if to != "a%20b" {
			return 500, to, nil
		}
		return 200, "OK", nil
	}})
	if r := send(t, dial(t, s, "a b", nil), "a b", "hello"); r.Code != 200 {
		t.Errorf("got %+v", r)
	}
}

func TestServeAnswersOtherMethods(t *testing.T) {
	const request = "%s sip:1002@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx;rport\r\nFrom: <sip:x@y>;tag=1\r\n" +
		"To: <sip:1002@sip.example.com>\r\nCall-ID: c\r\nCSeq: 1 %[1]s\r\nContent-Length: 0\r\n\r\n"
	for method, want := range map[string]int{"OPTIONS": 200, "SUBSCRIBE": 405, "INVITE": 405} {
		s := fake(t, fakesip.Config{})
		bob := dial(t, s, "1002", nil)
		register(t, bob)
		answers := s.Watch("z9hG4bKx")
		if err := s.Inject("1002", fmt.Sprintf(request, method)); err != nil {
			t.Fatal(err)
		}
		answer := <-answers
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, answer.StatusCode, want)
		}
		if tag, _ := answer.To().Params.Get("tag"); tag == "" {
			t.Errorf("%s: no To tag", method)
		}
		if h := answer.GetHeader("Allow"); h == nil || h.Value() != allow {
			t.Errorf("%s: Allow %v", method, h)
		}
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	var s recent
	for i := range maxRecent + 1 {
		s.add(fmt.Sprint(i), "branch")
	}
	if s.members["0"] != "" || s.members["1"] == "" || s.members[fmt.Sprint(maxRecent)] == "" || len(s.members) != maxRecent {
		t.Error("the oldest is known, or a newer one isn't")
	}
}

// FuzzReceive proves that no datagram can bring an agent down.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1;rport\r\nFrom: \"x\" <sip:%zz@y>;tag=1\r\nTo: <tel:123>\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\nDate: never\r\nContent-Length: 2\r\n\r\nhi"))
	f.Add([]byte("SIP/2.0 401 No\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nCSeq: 1 MESSAGE\r\nWWW-Authenticate: Digest realm=\"x\"\r\n\r\n"))
	f.Add([]byte("OPTIONS * SIP/2.0\r\nVia: x\r\nTo: *\r\nFrom: *\r\nCall-ID: \r\nCSeq: 99999999999 X\r\n\r\n"))
	a, err := Dial(f.Context(), Config{Address: user("1001"), UDP: "127.0.0.1:9", Handle: func(m Incoming) bool {
		textLine(m, time.Now())
		jsonLine(m, time.Now())
		return true
	}})
	if err != nil {
		f.Fatal(err)
	}
	a.Close()
	parser := sip.NewParser()
	f.Fuzz(func(t *testing.T, datagram []byte) {
		a.receive(a.current(), parser, datagram)
	})
}
