//go:build interop

package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHEP has sngrep collect what the gateway copies in HEP3, and tshark read
// what sngrep made of it. What it asserts is what tshark saw: both sides of the
// gateway, as if it had listened on the wire.
func TestHEP(t *testing.T) {
	for tool, packaged := range map[string]string{"sngrep": "sngrep", "tshark": "tshark"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: install Debian's package %s", tool, packaged)
		}
	}
	collector := freePort(t, "udp")
	s := newServerWith(t, fmt.Sprintf("observers:\n  homer: {plugin: hep, server: \"udp://%s\", capture_id: 2001, password: \"open sesame\"}\n", collector))
	capture := startCapture(t, collector)
	s.start()
	s.importAccounts([]string{"1001", "1002"})
	s.imgate("send", "1001@sip.example.com", "1002@sip.example.com", "through Homer", "--password", password, "--server", s.sip)
	seen := capture.read()
	for _, want := range []string{
		"Request: MESSAGE sip:1002@sip.example.com",
		"Status: 401 Unauthorized",
		"Status: 202 Accepted",
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("tshark saw no %q:\n%s", want, seen)
		}
	}
}

// hepCapture is a sngrep that writes down what it is sent.
type hepCapture struct {
	t      *testing.T
	sngrep *exec.Cmd
	file   string
}

func startCapture(t *testing.T, address string) *hepCapture {
	t.Helper()
	c := &hepCapture{t: t, file: filepath.Join(t.TempDir(), "hep.pcap")}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c.sngrep = exec.CommandContext(ctx, "sngrep", "-N", "-q", "-L", "udp:"+address, "-O", c.file)
	if err := c.sngrep.Start(); err != nil {
		t.Fatal(err)
	}
	c.wait("sngrep to listen", func() bool { _, err := os.Stat(c.file); return err == nil })
	return c
}

// read ends sngrep and returns what tshark makes of its capture.
func (c *hepCapture) read() string {
	c.t.Helper()
	c.wait("the answer to arrive", func() bool { return strings.Contains(c.tshark(), "202 Accepted") })
	if err := c.sngrep.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Error(err)
	}
	_ = c.sngrep.Wait() // it was told to go: how it says that is its own business
	return c.tshark()
}

func (c *hepCapture) tshark() string {
	// The end of a file that is still written may be missing.
	out, _ := exec.CommandContext(c.t.Context(), "tshark", "-r", c.file).Output()
	return string(out)
}

// wait polls another process.
func (c *hepCapture) wait(what string, done func() bool) {
	c.t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		if done() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Logf("waited in vain for %s; seen so far:\n%s", what, c.tshark())
}
