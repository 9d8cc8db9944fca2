//go:build interop

package main_test

import (
	"strings"
	"testing"
)

// TestSIPjs: another phone for browsers registers, sends and receives.
func TestSIPjs(t *testing.T) {
	newSecureGateway(t, "1001", "1002")
	phones := map[string]handset{"1001": startBrowser(t, "sipjs.js", "1001"), "1002": startLinphone(t, "1002", "tls")}
	phones["1002"].(linphonePhone).tell(event{"do": "plain"})
	phones["1001"].send("1002", everyScript)
	phones["1002"].got("1001", everyScript)
	phones["1002"].send("1001", everyScript)
	phones["1001"].got("1002", everyScript)
}

// toEachDevice gives a message to each of the recipient's devices.
const toEachDevice = `package imgate.services.each

match := {"domains": ["*"]}

plan.transports := ["sip"]

plan.devices := "all"
`

// TestEachDevice: an account on liblinphone and in a browser, one of which is away
// when a message comes: both get it, once.
func TestEachDevice(t *testing.T) {
	s := newSecureGateway(t, "1001", "1002")
	givePolicies(t, s, map[string]string{"each.rego": toEachDevice})
	s.imgate("reload")
	browser, linphone := startBrowser(t, "phone.js", "1002"), startLinphone(t, "1002", "tls")
	send := func(text string) {
		t.Helper()
		out, problems, _ := s.try("send", "1001@sip.example.com", "1002@sip.example.com", text, "--password", password, "--server", gateway)
		if said := out + problems; !strings.Contains(said, "delivered: ") && !strings.Contains(said, "accepted: ") {
			t.Fatalf("%q: the sender is told %q", text, said)
		}
	}
	send("to both, " + everyScript)
	browser.got("1001", "to both, "+everyScript)
	linphone.got("1001", "to both, "+everyScript)

	linphone.stdin.Close() // it ends as if its battery were empty
	s.eventually("its connection has ended", func() bool { return s.metric("imgate_bindings") == 1 })
	send("to one that is there, " + everyScript)
	browser.got("1001", "to one that is there, "+everyScript)
	linphone = startLinphone(t, "1002", "tls")
	linphone.got("1001", "to one that is there, "+everyScript)

	send("the last")
	browser.got("1001", "the last")
	linphone.got("1001", "the last")
	if shown := browser.named("message"); len(shown) != 3 {
		t.Errorf("the browser shows %v", shown)
	}
	if shown := linphone.named("message"); len(shown) != 2 {
		t.Errorf("liblinphone shows %v", shown)
	}
}
