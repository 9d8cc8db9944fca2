// Package regotest is what tests of several rooms here need. Nothing else may
// import it.
package regotest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/open-policy-agent/opa/v1/ast"
)

// AnyService is a policy that takes everything.
const AnyService = `package imgate.services.a

match := {"domains": ["*"]}

plan.store := "1h"
`

// RoomOf makes a directory of the given files.
func RoomOf(t testing.TB, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	Put(t, dir, texts)
	return dir
}

// Put writes files, long enough ago to be read at once.
func Put(t testing.TB, dir string, texts map[string]string) {
	t.Helper()
	for name, text := range texts {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-time.Minute)
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
}

// Wants wants an error that says all the parts.
func Wants(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("there is no error, want %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got\n%v\nwant in it\n%s", err, part)
		}
	}
}

// Header begins a service that takes everything.
const Header = `package imgate.services.a

match := {"domains": ["*"]}

`

// Typical is a message between two of our subscribers, both registered.
func Typical() plugin.Question {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	return plugin.Question{
		Message: plugin.QuestionMessage{ID: "01890a5d-ac96-774b-bcce-b302099a8057", Type: "text/plain", Class: "text", Size: 42, Segments: 1},
		Sender: plugin.QuestionSender{
			Account: "1001", Address: "1001@sip.example.com", User: "1001", Domain: "sip.example.com", Local: true,
			Attributes: map[string]string{"tariff": "default"},
		},
		Recipient: plugin.QuestionRecipient{
			Address: "1002@sip.example.com", User: "1002", Domain: "sip.example.com",
			Local: true, Registered: true, Devices: 1,
		},
		Transport: "sip", Protocol: "sip", Peer: "192.0.2.1:5060",
		Time: at, Clock: plugin.ClockAt(at, time.UTC),
	}
}

// Recipient is somebody of whom the address alone is known.
func Recipient(address string) plugin.QuestionRecipient {
	user, domain, _ := strings.Cut(address, "@")
	return plugin.QuestionRecipient{Address: address, User: user, Domain: domain}
}

// Value is what JSON is in Rego.
func Value(t testing.TB, text string) ast.Value {
	t.Helper()
	v, err := ast.ValueFromReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestsOfA reach all of anyService.
const TestsOfA = `package imgate.services.a_test

import data.imgate.services.a

test_match if a.match == {"domains": ["*"]}

test_store if {
	a.plan.store == "1h" with input as {"message": {"size": 5}}
}
`
