//go:build interop

package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNotified: a message of liblinphone's, wrapped in CPIM, ends as "delivered to
// user", whoever tells so; what says that somebody is typing is never kept.
func TestNotified(t *testing.T) {
	s := newSecureGateway(t, "1001", "1002", "1003", "1004", "1005")
	alice := startLinphone(t, "1002", "tcp")

	t.Run("online", func(t *testing.T) {
		bob := startLinphone(t, "1003", "tls")
		text := "online, " + everyScript
		alice.send("1003", text)
		bob.got("1002", text)
		alice.learns(t, text, "delivered to user")
		bob.tell(event{"do": "read", "to": "1002"})
		alice.learns(t, text, "displayed")
		if n := len(alice.named("message")) + len(alice.named("error")); n != 0 {
			t.Errorf("a notification is shown: %v", alice.named("message"))
		}
	})
	t.Run("first offline", func(t *testing.T) {
		text := "offline, " + everyScript
		alice.send("1004", text)
		bob := startLinphone(t, "1004", "tcp")
		bob.got("1002", text)
		alice.learns(t, text, "delivered to user")
	})
	t.Run("a sender that has gone", func(t *testing.T) {
		bob := startLinphone(t, "1005", "tcp")
		s.imgate("send", "1004@sip.example.com", "1005@sip.example.com", wrapped("1004", "1005", "to be told later"), "--type", "message/cpim", "--password", password)
		bob.got("1004", "to be told later")
		inbox := run(t, exec.Command(s.binary, "listen", "1004@sip.example.com", "--json", "--server", gateway, "--config", s.config), "IMGATE_PASSWORD="+password)
		told := inbox.waitFor("the notification", 1, func(e event) bool { return strings.Contains(e.text("text"), "message/imdn+xml") })
		if text := told[0].text("text"); !strings.Contains(text, "<delivered") || !strings.Contains(text, "a-name-of-its-own") {
			t.Errorf("it says %s", text)
		}
	})
	t.Run("by the gateway, for a phone that takes only text", func(t *testing.T) {
		phone := baresipPhone{startBaresip(t, "tcp", "1001", "1002")}
		phone.waitFor(`(?m)^SIP/2\.0 200 OK\r$[^~]*?CSeq: \d+ REGISTER`)
		text := "unwrapped, " + everyScript
		alice.send("1001", text)
		phone.got("1002", text)
		alice.learns(t, text, "delivered to user")
	})
	t.Run("typing", func(t *testing.T) {
		bob := startLinphone(t, "1003", "tls")
		alice.tell(event{"do": "compose", "to": "1003"})
		bob.waitFor("the notice", 1, func(e event) bool { return e.is("composing") && e["from"] == "1002" && e["on"] == true })
		kept := func() string { return s.imgate("message", "list", "--to", "1005@sip.example.com", "--output", "json") }
		before := kept()
		alice.tell(event{"do": "compose", "to": "1005"})
		alice.send("1003", "behind the notice")
		bob.got("1002", "behind the notice")
		if after := kept(); after != before {
			t.Errorf("a typing notice is kept:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// learns waits until a message that the phone has sent is in a state.
func (p linphonePhone) learns(t *testing.T, tag, state string) {
	t.Helper()
	p.waitFor(state, 1, func(e event) bool { return e.is("state") && e["tag"] == tag && e["state"] == state })
}

// wrapped is a message/cpim whose sender wants to know when it was delivered.
func wrapped(from, to, text string) string {
	return "From: <sip:" + from + "@sip.example.com>\r\nTo: <sip:" + to + "@sip.example.com>\r\nDateTime: 2026-11-23T12:00:00Z\r\n" +
		"NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: a-name-of-its-own\r\nimdn.Disposition-Notification: positive-delivery, negative-delivery\r\n" +
		"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text
}
