//go:build interop

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// newSMPP starts the program as startSMPP does; more are further lines of the
// vendor's section. Everything that is said over SMPP is captured.
func newSMPP(t *testing.T, more string) *smppGateway {
	t.Helper()
	door, vendor := freePort(t, "tcp"), freePort(t, "tcp")
	captureSMPP(t, door, vendor) // till the program has ended
	return startSMPP(t, door, vendor, "", more)
}

// send sends a text from the subscriber, and returns what it is told.
func (g *smppGateway) send(to, text string) string {
	g.t.Helper()
	return g.imgate("send", subscriber, to, text, "--password", password, "--server", g.sip)
}

// listen registers an account over SIP, until the test ends. Its events have the
// fields of `imgate listen --json`.
func (g *smppGateway) listen(user string) *script {
	g.t.Helper()
	s := run(g.t, exec.Command(g.binary, "listen", user+"@sip.example.com", "--json", "--server", g.sip, "--config", g.config), "IMGATE_PASSWORD="+password)
	if !until(func() bool { return strings.Contains(s.said.String(), "listening as") }) {
		g.t.Fatalf("%s doesn't register: %s", user, s.said.String())
	}
	return s
}

// event is a line that a script printed.
type event map[string]any

func (e event) is(name string) bool { return e["event"] == name }

// text of a field; empty if it isn't there.
func (e event) text(field string) string {
	text, _ := e[field].(string)
	return text
}

// script is a program that prints events, JSON objects, one a line, and takes
// commands the same way.
type script struct {
	t     *testing.T
	name  string
	stdin io.WriteCloser
	said  *lockedBuffer // on standard error

	mu     sync.Mutex
	events []event
}

// run starts a program, until the test ends.
func run(t *testing.T, command *exec.Cmd, environment ...string) *script {
	t.Helper()
	s := &script{t: t, name: strings.Join(command.Args, " "), said: &lockedBuffer{}}
	command.Env = append(os.Environ(), environment...)
	command.Stderr = s.said
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s.stdin = stdin
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.read(stdout)
	}()
	t.Cleanup(func() {
		stdin.Close()
		command.Process.Kill()
		<-ended
		command.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", s.name, tail([]byte(s.said.String()), 2000))
		}
	})
	return s
}

func (s *script) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintf(s.said, "%s\n", lines.Bytes()) // it isn't an event
			continue
		}
		s.mu.Lock()
		s.events = append(s.events, e)
		s.mu.Unlock()
	}
}

// tell gives the program a command.
func (s *script) tell(command event) {
	s.t.Helper()
	line, err := json.Marshal(command)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.stdin.Write(append(line, '\n')); err != nil {
		s.t.Fatalf("%s: %v\n%s", s.name, err, s.said.String())
	}
}

// matching are the events so far that match.
func (s *script) matching(match func(event) bool) (found []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if match(e) {
			found = append(found, e)
		}
	}
	return found
}

// named are the events of a name so far.
func (s *script) named(name string) []event {
	return s.matching(func(e event) bool { return e.is(name) })
}

// wait waits for n events of a name and returns all there are.
func (s *script) wait(name string, n int) []event {
	s.t.Helper()
	return s.waitFor(fmt.Sprintf("%d %q", n, name), n, func(e event) bool { return e.is(name) })
}

// waitFor waits for n events that match and returns all there are.
func (s *script) waitFor(what string, n int, match func(event) bool) []event {
	s.t.Helper()
	if !until(func() bool { return len(s.matching(match)) >= n }) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Fatalf("%s: waited in vain for %s; the last of %d events are %v\n%s", s.name, what, len(s.events), s.events[max(0, len(s.events)-10):], s.said.String())
	}
	return s.matching(match)
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// runNode runs a script of testdata/smpp with node-smpp, which .ci/interop installs.
func runNode(t *testing.T, name, address string) *script {
	t.Helper()
	program := need(t, "node", "nodejs")
	modules, err := filepath.Abs(filepath.Join("..", "..", ".ci", "peers", "smpp", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "smpp")); err != nil {
		t.Fatalf("node-smpp is missing: run npm ci in .ci/peers/smpp: %v", err)
	}
	host, port := splitAddress(t, address)
	return run(t, exec.Command(program, filepath.Join("testdata", "smpp", name), host, port), "NODE_PATH="+modules)
}

func splitAddress(t *testing.T, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// captureSMPP captures what goes over these TCP ports till the test ends, when
// tshark must not find anything wrong with it.
func captureSMPP(t *testing.T, addresses ...string) {
	t.Helper()
	need(t, "tshark", "tshark")
	var ports, decode []string
	for _, address := range addresses {
		_, port := splitAddress(t, address)
		ports = append(ports, "tcp port "+port)
		decode = append(decode, "-d", "tcp.port=="+port+",smpp")
	}
	file := filepath.Join(t.TempDir(), "smpp.pcap")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	dumpcap := exec.CommandContext(ctx, need(t, "dumpcap", "wireshark-common"),
		"-q", "-i", "lo", "-B", "64", "-f", strings.Join(ports, " or "), "-w", file)
	said := &lockedBuffer{}
	dumpcap.Stderr = said
	if err := dumpcap.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		endCapture(t, addresses[0], file)
		_ = dumpcap.Process.Signal(syscall.SIGINT) // it may have ended
		if err := dumpcap.Wait(); err != nil {
			t.Errorf("dumpcap: %v\n%s", err, said.String())
		}
		wellFormed(t, file, decode)
	})
	if !until(func() bool { return strings.Contains(said.String(), "File: ") }) {
		t.Fatalf("nothing can be captured:\n%s", said.String())
	}
}

// endCapture returns when all that was said is in the capture, by saying one thing
// more: an enquire_link with a sequence number of its own.
func endCapture(t *testing.T, address, file string) {
	t.Helper()
	last := []byte("\x00\x00\x00\x10\x00\x00\x00\x15\x00\x00\x00\x00\x7f\xed\xcb\xa9")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer listener.Close()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write(last); err != nil {
		t.Error(err)
	}
	if !until(func() bool { text, _ := os.ReadFile(file); return bytes.Contains(text, last) }) {
		t.Error("the capture doesn't end")
	}
}

// wellFormed checks a capture: all of it is SMPP without a mistake, and nobody had
// to say that a PDU makes no sense.
func wellFormed(t *testing.T, file string, decode []string) {
	t.Helper()
	read := func(filter string, fields ...string) []string {
		command := exec.Command("tshark", append(append([]string{"-r", file, "-Y", filter}, decode...), fields...)...)
		out, err := command.Output()
		if err != nil {
			t.Errorf("tshark: %v", err)
		}
		return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	}
	if wrong := read("_ws.malformed || smpp.command_id == 0x80000000", "-V"); len(wrong) > 0 {
		t.Errorf("tshark finds these wrong:\n%s", tail([]byte(strings.Join(wrong, "\n")), 8000))
	}
	pdus := 0
	for _, line := range read("smpp", "-T", "fields", "-e", "smpp.command_id") {
		pdus += strings.Count(line, ",") + 1
	}
	if pdus <= 1 { // the one of endCapture
		t.Error("tshark has seen no SMPP")
	}
	t.Logf("tshark has seen %d PDUs", pdus)
}
