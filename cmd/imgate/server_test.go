//go:build process || interop || cluster

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is the real program as a process of its own, with a configuration and
// a data directory that outlive it.
type server struct {
	t      *testing.T
	binary string
	config string
	sip    string // host:port
	admin  string
	flags  []string // more of them for serve

	process *exec.Cmd
	log     *os.File
}

// newServer builds the program and writes its configuration.
func newServer(t *testing.T, sip string) *server {
	t.Helper()
	return newNode(t, build(t), "test", sip, "{plugin: pebble}")
}

// build builds the program and returns its file.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "imgate")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// newNode writes the configuration of a node. storage is that section of it.
func newNode(t *testing.T, binary, name, sip, storage string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, binary: binary, config: filepath.Join(dir, "imgate.yaml"), sip: sip, admin: freePort(t, "tcp")}
	if s.sip == "" {
		s.sip = freePort(t, "tcp") // of UDP it is free as well, but for rare bad luck
	}
	text := fmt.Sprintf(`node: %[4]s
data_dir: %[1]s
storage:  %[5]s
policy:   {plugin: rego}
accounts: {plugin: ledger}
charging: {plugin: ledger, price: "0.01"}
admin:    {listen: "%[2]s"}
transports:
  sip:
    plugin: sip
    listen: ["udp://%[3]s", "tcp://%[3]s"]
    domains: [sip.example.com]
`, filepath.Join(dir, "data"), s.admin, s.sip, name, storage)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s.log = log
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the server's log ends:\n%s", tail(text, 4000))
		}
	})
	return s
}

// newServerWith is newServer with more lines of YAML: first more of the SIP
// door's section, if they are indented, then other sections.
func newServerWith(t *testing.T, lines string) *server {
	t.Helper()
	s := newServer(t, "")
	file, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(lines); err != nil {
		t.Fatal(err)
	}
	return s
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// freePort returns an address on loopback that nobody uses just now.
func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.LocalAddr().String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// launch runs the server.
func (s *server) launch() {
	s.t.Helper()
	s.process = exec.Command(s.binary, append([]string{"serve", "--config", s.config}, s.flags...)...)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// start runs the server and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	s.launch()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		answer, err := http.Get("http://" + s.admin + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
	s.t.Fatal("the server isn't ready in time")
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

// givePolicies puts policies in the place of those that are built in, for the
// next reload.
func givePolicies(t *testing.T, s *server, files map[string]string) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(s.config), "policies")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.rewrite("{plugin: rego}", fmt.Sprintf("{plugin: rego, dir: %q}", dir))
}

func replaceOnce(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q isn't there once in\n%s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// kill ends the server as a power cut would.
func (s *server) kill() {
	if s.process == nil {
		return
	}
	s.process.Process.Kill()
	s.process.Wait()
	s.process = nil
}

// stop ends the server as an operator would.
func (s *server) stop() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		s.t.Errorf("exit: %v", err)
	}
	s.process = nil
}

// imgate runs a command of the program and returns what it prints.
func (s *server) imgate(args ...string) string {
	s.t.Helper()
	out, problems, status := s.try(args...)
	if status != 0 {
		s.t.Fatalf("imgate %s: exit status %d\n%s", strings.Join(args, " "), status, problems)
	}
	return out
}

// try runs a command of the program that may fail.
func (s *server) try(args ...string) (out, problems string, status int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, s.binary, append([]string{"--config", s.config}, args...)...)
	var printed, said bytes.Buffer
	command.Stdout, command.Stderr = &printed, &said
	err := command.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("imgate %s: %v", strings.Join(args, " "), err)
	}
	return printed.String(), said.String(), status
}

// quickly bounds what takes milliseconds on an idle machine.
const quickly = 20 * time.Second

// readiness asks whether the server is ready.
func (s *server) readiness() (status int, text string) {
	s.t.Helper()
	answer, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// logged is what the server has logged so far.
func (s *server) logged() string {
	s.t.Helper()
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// eventually polls another process.
func (s *server) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(quickly); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("in vain: %s", what)
		}
	}
}

// metrics reads /metrics.
func (s *server) metrics() string {
	s.t.Helper()
	answer, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("/metrics is answered %d: %v", answer.StatusCode, err)
	}
	return string(page)
}

// metric reads a series such as imgate_bindings from /metrics, its labels in
// the order of their names; 0 if there is none yet.
func (s *server) metric(series string) float64 {
	s.t.Helper()
	for line := range strings.Lines(s.metrics()) {
		text, found := strings.CutPrefix(line, series+" ")
		if !found {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			s.t.Fatalf("%s: %v", series, err)
		}
		return value
	}
	return 0
}

// password is that of every account in these tests.
const password = "correct-horse"

// importAccounts creates accounts, each with a hundred units of currency.
func (s *server) importAccounts(users []string) {
	s.t.Helper()
	s.importWith(users, "100.00")
}

func (s *server) importWith(users []string, balance string) {
	s.t.Helper()
	var text bytes.Buffer
	fmt.Fprintln(&text, "aor,password,balance")
	for _, user := range users {
		fmt.Fprintf(&text, "%s@sip.example.com,%s,%s\n", user, password, balance)
	}
	name := filepath.Join(filepath.Dir(s.config), "accounts.csv")
	if err := os.WriteFile(name, text.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.imgate("account", "import", name)
}

// table reads a CSV that the program printed, by column name.
func table(t *testing.T, text string) []map[string]string {
	t.Helper()
	rows, err := csv.NewReader(bufio.NewReader(strings.NewReader(text))).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("not a CSV with a header: %v\n%s", err, text)
	}
	var list []map[string]string
	for _, row := range rows[1:] {
		record := map[string]string{}
		for i, name := range rows[0] {
			record[name] = row[i]
		}
		list = append(list, record)
	}
	return list
}

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return names
}
