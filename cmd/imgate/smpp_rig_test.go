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

// What every test with SMPP has: phones with a number each, and the account of an
// ESME with several.
const (
	phone      = "1001@sip.example.com"
	number     = "447700900001" // of phone; 1002 and 1003 have the next ones
	absent     = "447700900003" // of 1003, which registers when a test wants it
	esmeID     = "acme"
	esmeSecret = "s3same77" // SMPP has room for eight
	esmeNumber = "447700900100"
)

// smppGateway is the program with a door for ESMEs and, if it has one, a vendor.
type smppGateway struct {
	*server
	door   string // where ESMEs connect
	vendor string // where we look for an SMSC
}

// newSMPP starts the program with a vendor that may not be there yet. more are
// further lines of the vendor's section. Everything that is said over SMPP is
// captured.
func newSMPP(t *testing.T, more string) *smppGateway {
	t.Helper()
	g := &smppGateway{door: freePort(t, "tcp"), vendor: freePort(t, "tcp")}
	captureSMPP(t, g.door, g.vendor) // till the program has ended
	s := newServer(t, "")
	g.server = s
	s.rewrite("policy:   {plugin: rego}", fmt.Sprintf("policy:   {plugin: rego, dir: %q}", writePolicies(t, s)))
	s.rewrite("accounts: {plugin: ledger}", "accounts: {plugin: ledger, number_domains: [sms.example.com]}")
	s.rewrite("transports:\n", fmt.Sprintf(`transports:
  smpp-server:
    plugin: smpp-server
    listen: ["tcp://%s"]
  smpp:
    plugin: smpp
    connect: [%q]
    system_id: imgate
    password: sesame
    reconnect: {min: 100ms, max: 1s}
%s`, g.door, g.vendor, more))
	s.start()
	s.importAccounts([]string{"1004"})
	for i := range 3 {
		s.imgate("account", "add", fmt.Sprintf("100%d@sip.example.com", i+1), "--password", password, "--balance", "100.00",
			"--identity", fmt.Sprintf("+44770090000%d", i+1))
	}
	s.imgate("account", "add", esmeID+"@sms.example.com", "--password", esmeSecret, "--balance", "1000.00",
		"--identity", "+"+esmeNumber, "--attribute", `smpp.senders=\+4477009001[0-9]{2}`)
	return g
}

// rewrite replaces something in the configuration.
func (s *server) rewrite(old, new string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(replaceOnce(s.t, string(text), old, new)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// writePolicies writes the policies that ship, but for those that want more
// transports. sms tries again every second; numbers that begin with 4499 have a
// service of their own, once, that gives up what nobody answers for.
func writePolicies(t *testing.T, s *server) (dir string) {
	t.Helper()
	dir = filepath.Join(filepath.Dir(s.config), "policies")
	s.imgate("policy", "init", dir)
	text := func(name string) string {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sms := replaceOnce(t, text("sms.rego"), `["10s", "1m", "5m", "15m", "1h"]`, `["1s"]`)
	once := replaceOnce(t, sms, "package imgate.services.sms", "package imgate.services.once")
	write("sms.rego", sms)
	write("once.rego", replaceOnce(t, once, `plan.retry.unknown := "retry"`, `plan.retry.unknown := "fail"`))
	write("sms.yaml", replaceOnce(t, text("sms.yaml"), "    - {service: sms, prefixes: [\"4490\"",
		"    - {service: once, prefixes: [\"4499\"], attributes: {destination: sms}}\n    - {service: sms, prefixes: [\"4490\""))
	for _, pattern := range []string{"*_test.rego", "rate*", "campaigns*", "rewrite*", "numbering*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// send sends a text from the phone, and returns what it is told.
func (g *smppGateway) send(to, text string) string {
	g.t.Helper()
	return g.imgate("send", phone, to, text, "--password", password, "--server", g.sip)
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

// node runs a script of testdata/smpp with node-smpp, which .ci/interop installs.
func node(t *testing.T, name, address string) *script {
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
