package standard_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/webhook"
)

// pushed is a request that a push server gets.
type pushed struct {
	Account, AOR, Device, Provider, Param, PRID, Node string

	signature string
	body      []byte
}

// TestSleepingAppIsWoken: an app registers, its connection ends, messages wait and
// the push server is asked once; the app registers anew and has them.
func TestSleepingAppIsWoken(t *testing.T) {
	const secret = "0123456789abcdef"
	asked := make(chan pushed, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p := pushed{signature: r.Header.Get(webhook.SignatureHeader)}
		p.body, _ = io.ReadAll(r.Body)
		if err := json.Unmarshal(p.body, &p); err != nil {
			t.Error(err)
		}
		asked <- p
	}))
	t.Cleanup(server.Close)
	app := &vendor{gate: make(chan plugin.Gate, 1), sent: make(chan *message.Message, 10)}
	open(t, func(c *engine.Config) {
		hook := webhook.Plugin.NewConfig().(*webhook.Config)
		hook.URL, hook.Secret = server.URL, secret
		c.Push = engine.Instance{Name: "push", Plugin: webhook.Plugin, Settings: hook}
		c.Transports[0] = instance("sip", plugin.DefineTransport("sip", "", none{}, give[plugin.Transport](app)).AsRegistrar())
	})
	gate := <-app.gate
	ann, bob := subscribers[0], subscribers[1]
	register := func(flow string, cseq uint32) {
		t.Helper()
		_, err := gate.Register(t.Context(), plugin.Registration{
			Account: bob, AOR: bob.Identities[0], CallID: "c", CSeq: cseq, Bindings: []plugin.Binding{{
				Contact: "sip:bob@app.invalid;transport=tcp", Flow: flow, Device: "<urn:uuid:1>", Expires: time.Now().Add(time.Hour),
				Push: plugin.Push{Provider: "fcm", Param: "project", ID: "token"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	register("tcp 1", 1)
	if err := gate.Lost(t.Context(), "tcp 1"); err != nil {
		t.Fatal(err)
	}
	texts := []string{"one", "two", "three"}
	for _, text := range texts {
		ticket := gate.Submit(plugin.Arrival{
			Message: &message.Message{From: ann.Identities[0], Recipient: bob.Identities[0], ContentType: "text/plain", Body: []byte(text), Hops: 70, Peer: "192.0.2.1:5060"},
			Account: ann, Key: text,
		})
		if _, err := ticket.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p := received(t, asked)
	got := strings.Join([]string{p.Account, p.AOR, p.Device, p.Provider, p.Param, p.PRID, p.Node}, " ")
	if got != "bob bob@sip.example.com <urn:uuid:1> fcm project token test" {
		t.Errorf("asked to wake %s", got)
	}
	var sent struct{ Time time.Time }
	if err := json.Unmarshal(p.body, &sent); err != nil || p.signature != webhook.Sign(secret, sent.Time, p.body) {
		t.Errorf("signed with %q, %v", p.signature, err)
	}
	register("tcp 2", 2)
	for _, text := range texts {
		if m := received(t, app.sent); string(m.Body) != text {
			t.Errorf("got %q, want %q", m.Body, text)
		}
	}
	if len(asked) > 0 {
		t.Errorf("asked again: %+v", <-asked)
	}
}
