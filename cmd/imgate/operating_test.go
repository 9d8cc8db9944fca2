//go:build process

package main_test

import (
	"strings"
	"testing"

	"github.com/imgate/imgate/examples/exampletest"
)

// TestOperatingDay types what docs/operating.md says, in its order, into a
// shell in an empty directory, and compares what is printed.
func TestOperatingDay(t *testing.T) {
	ports := strings.NewReplacer("127.0.0.1:5060", exampletest.FreePort(t), "127.0.0.1:8060", freePort(t, "tcp"))
	exampletest.OpenShell(t, t.TempDir()).Follow("../../docs/operating.md", 20, ports)
}
