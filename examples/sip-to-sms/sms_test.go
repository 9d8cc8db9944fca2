// Package sms_test does what the README of this example says.
package sms_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/examples/exampletest"
)

// TestTour types the README word for word into a shell in a copy of this
// directory, on ports that are free here.
func TestTour(t *testing.T) {
	ports := strings.NewReplacer(
		"127.0.0.1:8060", exampletest.FreePort(t), "127.0.0.1:5060", exampletest.FreePort(t), "127.0.0.1:2775", exampletest.FreePort(t))
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"imgate.yaml", "demo"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// WriteFile leaves the mode of a file that is there.
		if err := os.WriteFile(filepath.Join(folder, name), []byte(ports.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exampletest.OpenShell(t, folder).Follow("README.md", 15, ports)
}
