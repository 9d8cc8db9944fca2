//go:build process

package main_test

import (
	"context"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// operatorsPolicies lead to a domain that isn't ours: what goes there goes to an
// echo. What comes back from there nobody here pays for.
var operatorsPolicies = map[string]string{
	"partner.rego": `package imgate.services.partner

match := {"domains": ["partner.example.net"]}

plan.transports := ["echo"]

plan.charging.mode := "event"
`,
	"home.rego": `package imgate.services.home

match := {"domains": ["*"]}

plan.transports := ["sip"]

plan.charging.mode := "event" if input.transport != "echo"
`,
}

// TestForeignDomain: nobody is relayed to a domain that isn't ours, unless an
// operator's service leads there.
func TestForeignDomain(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s := newServerWith(t, "  echo: {plugin: loop}\n")
			s.start()
			s.importAccounts([]string{"alice"})
			echoes := make(chan ua.Incoming, 10)
			alice := dialOver(t, s, network, "alice", func(m ua.Incoming) bool {
				echoes <- m
				return true
			})
			defer alice.Close()
			register(t, alice)
			for _, host := range []string{"partner.example.net", "sip.example.com.evil.example", "192.0.2.7"} {
				if refused := sayTo(t, alice, message.Address{User: "bob", Host: host}, "hello"); refused.Code != 403 {
					t.Errorf("a message to %s is answered %+v", host, refused)
				}
			}
			if n := s.metric(`imgate_delivery_attempts_total{outcome="taken",transport="echo"}`); n != 0 {
				t.Errorf("the echo got %g messages", n)
			}

			givePolicies(t, s, operatorsPolicies)
			s.imgate("reload")
			if answer := sayTo(t, alice, message.Address{User: "bob", Host: "partner.example.net"}, "hello "+network); answer.Code != 200 {
				t.Errorf("a message that is routed is answered %+v", answer)
			}
			select {
			case m := <-echoes:
				if string(m.Body) != "hello "+network || m.From.String() != "bob@partner.example.net" {
					t.Errorf("%q comes back from %s", m.Body, m.From)
				}
			case <-time.After(quickly):
				t.Error("nothing comes back")
			}
			if refused := sayTo(t, alice, message.Address{User: "bob", Host: "other.example.net"}, "hello"); refused.Code != 403 {
				t.Errorf("a message to a domain that isn't routed is answered %+v", refused)
			}
		})
	}
}

// dialOver is dial over UDP or TCP.
func dialOver(t *testing.T, s *server, network, user string, handle func(ua.Incoming) bool) *ua.Agent {
	t.Helper()
	config := ua.Config{Address: message.Address{User: user, Host: "sip.example.com"}, Password: password, Handle: handle}
	if network == "tcp" {
		config.TCP = s.sip
	} else {
		config.UDP = s.sip
	}
	agent, err := ua.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// sayTo is say to whatever address.
func sayTo(t *testing.T, from *ua.Agent, to message.Address, text string) ua.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quickly)
	defer cancel()
	result, err := from.Message(ctx, to, "text/plain", []byte(text), ua.Options{})
	if err != nil {
		t.Errorf("%q gets no answer: %v", text, err)
	}
	return result
}
