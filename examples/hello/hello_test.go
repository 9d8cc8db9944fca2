// Package hello_test does what the README of this example says.
package hello_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/examples/exampletest"
)

// TestHello starts the program with this configuration, on ports that are free
// here, and runs the README's commands in their order.
func TestHello(t *testing.T) {
	e := newExample(t)
	e.imgate("check")
	e.serve()
	var text string
	for _, line := range commands(t) {
		text += e.imgate(line...)
	}
	for _, want := range []string{"kept until the recipient comes online", "1001@sip.example.com  Hello", ",0.05,EUR,hello,sip,"} {
		if !strings.Contains(text, want) {
			t.Errorf("the commands don't print %q but\n%s", want, text)
		}
	}
}

// example is a copy of this directory with the program built into it.
type example struct {
	t   *testing.T
	dir string
}

func newExample(t *testing.T) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	if err := os.CopyFS(filepath.Join(e.dir, "policies"), os.DirFS("policies")); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("imgate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:8060", exampletest.FreePort(t), "127.0.0.1:5060", exampletest.FreePort(t)).Replace(string(config))
	if err := os.WriteFile(filepath.Join(e.dir, "imgate.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	exampletest.Build(t, e.dir)
	return e
}

func (e *example) command(ctx context.Context, args ...string) *exec.Cmd {
	if !strings.Contains(strings.Join(args, " "), "--config") {
		args = append(args, "--config", "imgate.yaml")
	}
	command := exec.CommandContext(ctx, filepath.Join(e.dir, "imgate"), args...)
	command.Dir = e.dir
	return command
}

func (e *example) imgate(args ...string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	out, err := e.command(ctx, args...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("imgate %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// serve runs the gateway until the test ends and waits for its banner.
func (e *example) serve() {
	e.t.Helper()
	ctx, stop := context.WithCancel(e.t.Context())
	serve := e.command(ctx, "serve")
	serve.Cancel = func() error { return serve.Process.Signal(os.Interrupt) }
	out, err := serve.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		stop()
		serve.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		e.t.Fatalf("the gateway doesn't start: %v", err)
	}
	go io.Copy(io.Discard, out)
}

// commands are those of the README's second block, split as a shell would.
func commands(t *testing.T) [][]string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, second, ok := strings.Cut(string(readme), "another terminal:")
	if !ok {
		t.Fatal("the README has changed: this test reads its second block")
	}
	var list [][]string
	for line := range strings.Lines(second) {
		if words, ok := strings.CutPrefix(strings.TrimSpace(line), "imgate "); ok {
			list = append(list, strings.Fields(strings.ReplaceAll(words, `"`, "")))
		}
	}
	if len(list) != 5 {
		t.Fatalf("%d commands, want 5", len(list))
	}
	return list
}
