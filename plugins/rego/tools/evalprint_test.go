package tools

import (
	"slices"
	"strings"
	"testing"
)

// TestWrapped: a long value takes several lines, and nothing of it is lost.
func TestWrapped(t *testing.T) {
	long := strings.Repeat(`"text/plain",`, 9) + `"text/html"`
	for value, want := range map[string]int{"": 1, `"1h"`: 1, strings.Repeat("x", 200): 1, long: 3} {
		lines := wrapped(value)
		if len(lines) != want || strings.Join(lines, "") != value {
			t.Errorf("%q: %q", value, lines)
		}
		if want > 1 && slices.ContainsFunc(lines, func(line string) bool { return len(line) > wide }) {
			t.Errorf("%q: too long", lines)
		}
	}
}

// TestBuiltInIsSaid: who forgot the directory must see whose policies these are.
func TestBuiltInIsSaid(t *testing.T) {
	t.Chdir("testdata")
	for path, args := range map[string][]string{
		"policy test": nil, "policy check": nil, "policy domains": {"1@sip.example.com"}, "policy eval": {"--message", "messages/sms.json"},
	} {
		if got := imgate(t, path, "", args...); got.err != noteBuiltIn+"\n" {
			t.Errorf("%s: %+v", path, got)
		}
		if got := imgate(t, path, "", append(args, "--dir", "good")...); strings.Contains(got.err, noteBuiltIn) {
			t.Errorf("%s --dir good: %+v", path, got)
		}
	}
}

// TestTypesByProtocol: the types that may go over an instance are those of what it
// speaks, whatever it is called.
func TestTypesByProtocol(t *testing.T) {
	dir := wrote(t, map[string]string{"a.rego": `package imgate.services.a

match := {"domains": ["*"]}

plan.transports := ["vendor", "smpp-server"]

plan.mime.smpp := ["text/plain"]
`})
	for mediaType, want := range map[string]string{
		"text/plain": `"verdict": "deliver"`, "text/html": `"verdict": "unsupported-type"`,
	} {
		got := imgate(t, "policy eval", "{}", dir, "--message", "-", "--output", "json", "--set", "message.type="+mediaType)
		if !strings.Contains(got.out, want) {
			t.Errorf("%s: %+v, want %s", mediaType, got, want)
		}
	}
}
