// Package policies_test does what the README of this example says.
package policies_test

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
	ports := strings.NewReplacer("127.0.0.1:8060", exampletest.FreePort(t), "127.0.0.1:5060", exampletest.FreePort(t))
	config, err := os.ReadFile("imgate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "imgate.yaml"), []byte(ports.Replace(string(config))), 0o600); err != nil {
		t.Fatal(err)
	}
	exampletest.OpenShell(t, folder).Follow("README.md", 25, ports)
}
