// Package exampletest is what the tests of the examples and of pages have in
// common: they run the program as a process, beside other tests that do the same.
package exampletest

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build builds the program as imgate in a folder. The test runs in the folder of
// its example, or in that of the program.
func Build(t *testing.T, folder string) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(folder, "imgate"), "../../cmd/imgate")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// FreePort returns an address on loopback that nobody listens at, by TCP or UDP.
func FreePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if conn, err := net.ListenPacket("udp", listener.Addr().String()); err == nil {
			defer conn.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}
