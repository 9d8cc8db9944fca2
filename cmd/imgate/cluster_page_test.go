//go:build process

package main_test

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/imgate/imgate/examples/exampletest"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// TestClusterPage types what docs/cluster.md says, in its order, into a shell in
// an empty directory, and compares what is printed.
func TestClusterPage(t *testing.T) {
	database, err := url.Parse(postgrestest.Start(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	ports := strings.NewReplacer(
		"127.0.0.1:5432", database.Host, // the others stand alone in the page, too
		"5060", portOf(t, exampletest.FreePort(t)), "5062", portOf(t, exampletest.FreePort(t)),
		"8060", portOf(t, freePort(t, "tcp")), "8061", portOf(t, freePort(t, "tcp")),
	)
	exampletest.OpenShell(t, t.TempDir()).Follow("../../docs/cluster.md", 30, ports)
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
