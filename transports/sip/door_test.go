package sip

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func TestDigest(t *testing.T) {
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		t.Run(algorithm, func(t *testing.T) {
			g := &gate{}
			c := newClient(t, openDoor(t, g, nil))
			c.algorithm = algorithm
			c.login()
			want(t, c.message("", "one"), "202 Accepted")
			want(t, c.message("", "two"), "202 Accepted") // the same nonce
			want(t, strings.Replace(c.register(""), "Contact", "", 1), "200 OK")
			proxy := strings.Replace(c.credentials("MESSAGE", bob), "Authorization", "Proxy-Authorization", 1)
			c.send(c.request("MESSAGE", bob, proxy, "three"))
			want(t, c.receive(), "202 Accepted")
			if n := len(g.submitted()); n != 3 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestChallenge(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	// Whether the recipient exists, the unauthenticated don't learn.
	for _, uri := range []string{bob, "sip:nobody@sip.example.com", "sip:x@elsewhere.example.com"} {
		c.send(c.request("MESSAGE", uri, "", "x"))
		got := c.receive()
		want(t, got, "401 Unauthorized", `realm="sip.example.com"`, `qop="auth"`)
		if md5, sha := strings.Index(got, "algorithm=MD5"), strings.Index(got, "algorithm=SHA-256"); md5 < 0 || sha < md5 || strings.Contains(got, "stale") {
			t.Error(got)
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	ask := func(headers string) string {
		c.send(c.request("MESSAGE", bob, headers, "x"))
		return c.receive()
	}
	got := ask(c.authorization("MESSAGE", bob, "00000001", "wrong"))
	want(t, got, "401 Unauthorized")
	if strings.Contains(got, "stale") {
		t.Error("a wrong password is not stale")
	}
	want(t, ask(c.authorization("MESSAGE", bob, "0001", password)), "400 Bad Credentials")
	want(t, ask(c.authorization("MESSAGE", bob, "00000000", password)), "400 Bad Credentials")
	want(t, ask(c.authorization("MESSAGE", "sip:other@sip.example.com", "00000001", password)), "400 Bad Credentials")
	want(t, ask("Authorization: Basic eDp5\r\n"), "401 Unauthorized")
	want(t, ask(`Authorization: Digest username="1001`+"\r\n"), "401 Unauthorized")
	want(t, ask(strings.Replace(c.authorization("MESSAGE", bob, "00000001", password), `realm="sip.example.com"`, `realm="x"`, 1)), "401 Unauthorized")
	c.username = "suspended"
	want(t, ask(c.authorization("MESSAGE", bob, "00000001", password)), "403 Forbidden")
	if n := len(g.submitted()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestReplay(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	ask := func(nc string) string {
		c.send(c.request("MESSAGE", bob, c.authorization("MESSAGE", bob, nc, password), "x"))
		return c.receive()
	}
	for _, step := range []struct{ nc, status string }{
		{"00000005", "202 Accepted"},
		{"00000003", "202 Accepted"}, // overtaken
		{"00000005", "401 Unauthorized"},
		{"00000003", "401 Unauthorized"},
		{"00000100", "202 Accepted"},
		{"00000004", "401 Unauthorized"}, // too far behind to tell
		{"00000081", "202 Accepted"},
	} {
		got := ask(step.nc)
		want(t, got, step.status)
		if strings.Contains(got, "stale=true") != (step.status == "401 Unauthorized") {
			t.Error(got)
		}
	}
	c.qop = ""
	c.login()
	want(t, ask(""), "202 Accepted") // RFC 2069: once
	want(t, ask(""), "401 Unauthorized", "stale=true")
}

func TestStaleNonce(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.nonce = newNonces(time.Minute, plugin.Tenure{Fence: 1, Key: [32]byte{2}}, time.Time{}).make("sip.example.com", "address", "source", time.Now()) // of another installation
	want(t, c.message("", "x"), "401 Unauthorized", "stale=true")
	c.nonce = "made-up"
	want(t, c.message("", "x"), "401 Unauthorized", "stale=true")
}

func TestRetransmission(t *testing.T) {
	for _, held := range []bool{false, true} {
		g := &gate{}
		if held {
			g.hold = make(chan struct{})
		}
		c := newClient(t, openDoor(t, g, nil))
		c.login()
		request := c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "x")
		c.send(request)
		if held {
			c.send(request)
			close(g.hold)
		}
		first := c.receive()
		want(t, first, "202 Accepted")
		c.send(request)
		if again := c.receive(); again != first {
			t.Errorf("%q, then %q", first, again)
		}
		if n := len(g.submitted()); n != 1 {
			t.Errorf("%d messages", n)
		}
	}
}

func TestArrival(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	now := time.Now().UTC().Truncate(time.Second)
	want(t, c.message("Content-Type: text/html;charset=utf-8\r\nExpires: 60\r\nSubject: s\r\nContent-Language: de\r\nX-Other: x\r\nDate: "+now.Format(http.TimeFormat)+"\r\n", "hello"), "202 Accepted")
	want(t, c.message("Date: "+now.Add(-time.Hour).Format(http.TimeFormat)+"\r\n", "hello"), "202 Accepted")
	arrivals := g.submitted()
	m := arrivals[0].Message
	if m.From.String() != "1001@sip.example.com" || m.Recipient.String() != "1002@sip.example.com" || m.DisplayName != "Ann" ||
		m.ContentType != "text/html;charset=utf-8" || string(m.Body) != "hello" || m.Expires == nil || *m.Expires != time.Minute ||
		m.Hops != 69 || m.Transport != "sip" || m.Peer != "127.0.0.1" || arrivals[0].Account.ID != "acc-1" {
		t.Errorf("%+v", m)
	}
	if got := fmt.Sprint(m.Headers); got != fmt.Sprintf("[{Subject s} {Content-Language de} {Date %s}]", now.Format(http.TimeFormat)) {
		t.Error(got)
	}
	other := arrivals[1].Message
	if other.ContentType != "text/plain" || other.Expires != nil || len(other.Headers) != 0 {
		t.Errorf("%+v", other)
	}
	if arrivals[0].Key == arrivals[1].Key || len(arrivals[0].Key) != 24 {
		t.Errorf("keys %q %q", arrivals[0].Key, arrivals[1].Key)
	}
	// The same submission in a new transaction has the same key.
	c.cseq--
	request := strings.Replace(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "hello"), "branch=z9hG4bK", "branch=z9hG4bKnew", 1)
	c.send(request)
	_ = c.receive()
	if again := g.submitted(); len(again) != 3 || again[2].Key != again[1].Key {
		t.Errorf("%d arrivals", len(again))
	}
}

func TestRefusedMessages(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, func(c *Config) { c.Limits.Body = 10 }))
	c.login()
	for _, test := range []struct{ old, new, status string }{
		{"<sip:1001@sip.example.com>;tag=f", "<sip:1003@sip.example.com>;tag=f", "403 Forbidden"},
		{"<sip:1001@sip.example.com>;tag=f", "<tel:+15551234>;tag=f", "403 Forbidden"},
		{"Max-Forwards: 70", "Max-Forwards: 0", "483 Too Many Hops"},
		{"Max-Forwards: 70", "Expires: soon", "400 Bad Request"},
		{"Max-Forwards: 70", "Content-Type: text", "400 Bad Content-Type"},
		{"Max-Forwards: 70", "Require: path, x", "420 Bad Extension"},
		{"Content-Length: 5\r\n\r\nhello", "\r\nhello world", "413 Request Entity Too Large"},
	} {
		c.send(strings.Replace(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "hello"), test.old, test.new, 1))
		want(t, c.receive(), test.status)
	}
	const empty = "sip:sip.example.com"
	c.send(c.request("MESSAGE", empty, c.credentials("MESSAGE", empty), "hello"))
	want(t, c.receive(), "400 Bad Request")
	if n := len(g.submitted()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestOtherMethods(t *testing.T) {
	c := newClient(t, openDoor(t, &gate{}, nil))
	for method, status := range map[string]string{
		"OPTIONS": "200 OK", "INVITE": "405 Method Not Allowed", "SUBSCRIBE": "405 Method Not Allowed", "FOO": "405 Method Not Allowed",
		"message": "405 Method Not Allowed", "BYE": "481 Call/Transaction Does Not Exist", "CANCEL": "481 Call/Transaction Does Not Exist",
	} {
		c.send(c.request("ACK", bob, "", "")) // never answered
		c.send(c.request(method, bob, "", ""))
		got := c.receive()
		want(t, got, status)
		if strings.HasPrefix(status, "481") == strings.Contains(got, "Allow: MESSAGE, OPTIONS, REGISTER\r\n") {
			t.Error(got)
		}
	}
}

// TestFinals: each reason gets its status, as a refusal and as an outcome.
func TestFinals(t *testing.T) {
	for _, row := range finals {
		for _, temporary := range []bool{false, true} {
			for _, outcome := range []bool{false, true} {
				failure := &message.Failure{Reason: row.reason, Temporary: temporary, Accept: []string{"text/plain", "text/html"}}
				g := &gate{within: time.Second, refused: failure}
				if outcome {
					g = &gate{within: time.Second, outcome: plugin.Outcome{State: plugin.OutcomeFailed, Failure: failure}}
				}
				c := newClient(t, openDoor(t, g, nil))
				c.login()
				got, expected := c.message("", "x"), row.final
				if temporary {
					expected = row.temporary
				}
				if !strings.HasPrefix(got, fmt.Sprintf("SIP/2.0 %d ", expected)) {
					t.Errorf("%s, temporary %t: %s", row.reason, temporary, status(got))
				}
				if strings.Contains(got, "Retry-After: 5\r\n") != (temporary || row.reason.OfNode()) {
					t.Errorf("%s, temporary %t: %s", row.reason, temporary, got)
				}
				if strings.Contains(got, "Accept: text/plain, text/html\r\n") != (expected == 415) {
					t.Errorf("%s: %s", row.reason, got)
				}
			}
		}
	}
}

func TestOutcomes(t *testing.T) {
	for state, expected := range map[plugin.OutcomeState]string{plugin.OutcomeDelivered: "200 OK", plugin.OutcomeWaiting: "202 Accepted"} {
		c := newClient(t, openDoor(t, &gate{within: time.Second, outcome: plugin.Outcome{State: state}}, nil))
		c.login()
		want(t, c.message("", "x"), expected)
	}
}

func TestPanicBehindTheGate(t *testing.T) {
	d := openDoor(t, &gate{panics: true}, nil)
	c := newClient(t, d)
	c.login()
	for n := range uint64(2) {
		want(t, c.message("", "x"), "500 Server Internal Error")
		if got := d.Counts(); got.Panics != n+1 || got.Pending != 0 {
			t.Errorf("%+v", got)
		}
	}
}

func TestInactive(t *testing.T) {
	g := &gate{inactive: &message.Failure{Reason: message.Standby, RetryAfter: 2 * time.Second}}
	c := newClient(t, openDoor(t, g, nil))
	for _, method := range []string{"OPTIONS", "MESSAGE", "REGISTER"} {
		c.send(c.request(method, bob, "", ""))
		want(t, c.receive(), "503 Service Unavailable", "Retry-After: 2\r\n")
	}
}

// TestOrder: messages of one sender are submitted as they came.
func TestOrder(t *testing.T) {
	g := &gate{}
	c := newClient(t, openDoor(t, g, nil))
	c.login()
	const n, window = 200, 16 // more at once might be lost on the way
	for i := range n + window {
		if i < n {
			c.send(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), fmt.Sprint(i)))
		}
		if i >= window {
			want(t, c.receive(), "202 Accepted")
		}
	}
	for i, a := range g.submitted() {
		if string(a.Message.Body) != fmt.Sprint(i) {
			t.Fatalf("message %s came at place %d", a.Message.Body, i)
		}
	}
}

func TestShutdownLeavesUnanswered(t *testing.T) {
	g := &gate{hold: make(chan struct{})}
	var c *client
	t.Run("door", func(t *testing.T) {
		d := openDoor(t, g, nil)
		c = newClient(t, d)
		c.login()
		c.send(c.request("MESSAGE", bob, c.credentials("MESSAGE", bob), "x"))
		c.send(c.request("OPTIONS", bob, "", ""))
		want(t, c.receive(), "200 OK") // so the message has been submitted
	}) // Serve has returned, or this would hang
	if n := len(g.submitted()); n != 1 {
		t.Errorf("%d messages", n)
	}
}
