//go:build process

package main_test

import (
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// TestClusterPage types what docs/cluster.md says, in its order, into a shell in
// an empty directory, and compares what is printed.
func TestClusterPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := readConsole(string(text))
	if len(commands) < 30 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	database, err := url.Parse(postgrestest.Start(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	ports := strings.NewReplacer(
		"127.0.0.1:5432", database.Host, // the others stand alone in the page, too
		"5060", portOf(t, freeBothPort(t)), "5062", portOf(t, freeBothPort(t)),
		"8060", portOf(t, freePort(t, "tcp")), "8061", portOf(t, freePort(t, "tcp")),
	)
	sh := openShell(t)
	for _, c := range commands {
		out, status := sh.run(ports.Replace(c.text))
		if status != 0 {
			t.Fatalf("line %d: %s\nexit status %d:\n%s", c.line, c.text, status, out)
		}
		if missing := c.missing(ports, out); missing != "" {
			t.Fatalf("line %d: %s\nexpected a line like\n\t%s\nbut it prints\n%s", c.line, c.text, missing, out)
		}
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
