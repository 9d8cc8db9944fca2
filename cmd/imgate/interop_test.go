//go:build interop

package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These tests run sipp against the real program, both on fixed ports: run them
// in a network namespace of their own. What they assert is what sipp saw.
const (
	gateway = "127.0.0.1:5060"
	inbox   = "15310" // sipp's port for messages
)

func TestSipp(t *testing.T) {
	sipp, err := exec.LookPath("sipp")
	if err != nil {
		t.Fatal("sipp is missing: install Debian's package sip-tester")
	}
	s := newServer(t, gateway)
	s.start()
	s.importAccounts([]string{"1001", "1002", "1003"})
	p := &peer{t: t, sipp: sipp, dir: t.TempDir()}

	t.Run("1000 online at 200 a second", func(t *testing.T) {
		p.t = t
		received := p.receive("online", 1000)
		p.register("1002")
		p.send("1002", "200", 1000, 200)
		p.wait(received, "online", 1000)
	})
	t.Run("500 offline, then register", func(t *testing.T) {
		p.t = t
		p.send("1003", "202", 500, 200)
		received := p.receive("offline", 500)
		p.register("1003")
		p.wait(received, "offline", 500)
	})
	cdrs := table(t, s.imgate("cdr", "export", "--format", "csv"))
	if len(cdrs) != 1500 {
		t.Errorf("%d CDRs for 1500 messages", len(cdrs))
	}
}

// peer runs sipp.
type peer struct {
	t    *testing.T
	sipp string
	dir  string
}

// command prepares a sipp that runs a scenario of testdata.
func (p *peer) command(scenario string, args ...string) *exec.Cmd {
	file, err := filepath.Abs(filepath.Join("testdata", "sipp", scenario))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	p.t.Cleanup(cancel)
	command := exec.CommandContext(ctx, p.sipp, append([]string{
		gateway, "-sf", file, "-i", "127.0.0.1", "-nostdin", "-timeout", "90", "-timeout_error",
	}, args...)...)
	command.Dir = p.dir
	return command
}

func (p *peer) run(what string, command *exec.Cmd) {
	p.t.Helper()
	if out, err := command.CombinedOutput(); err != nil {
		p.t.Fatalf("sipp can't %s: %v\n%s", what, err, tail(out, 3000))
	}
}

// data writes sipp's injection file of one line.
func (p *peer) data(fields ...string) string {
	p.t.Helper()
	name := filepath.Join(p.dir, "data.csv")
	if err := os.WriteFile(name, []byte("SEQUENTIAL\n"+strings.Join(fields, ";")+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return name
}

func credentials(user string) string {
	return fmt.Sprintf("[authentication username=%s password=%s]", user, password)
}

func (p *peer) register(user string) {
	p.t.Helper()
	p.run("register", p.command("register.xml", "-m", "1", "-p", "15311", "-key", "contact", inbox, "-inf", p.data(user, credentials(user))))
}

// send sends n messages and expects each to be answered as given.
func (p *peer) send(to, answer string, n, rate int) {
	p.t.Helper()
	scenario, err := os.ReadFile(filepath.Join("testdata", "sipp", "message.xml"))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.dir, "message-"+answer+".xml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(scenario), "[answer]", answer)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	command := p.command("message.xml", "-m", strconv.Itoa(n), "-r", strconv.Itoa(rate), "-p", "15312", "-inf", p.data("1001", credentials("1001"), to))
	command.Args[3] = file
	p.run("send", command)
}

// receive starts a sipp that takes n messages and writes down each.
func (p *peer) receive(name string, n int) *exec.Cmd {
	p.t.Helper()
	command := p.command("receive.xml", "-m", strconv.Itoa(n), "-p", inbox, "-trace_msg", "-message_file", filepath.Join(p.dir, name+".log"))
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	return command
}

// wait waits until the receiver has its messages: each number once, in order.
func (p *peer) wait(command *exec.Cmd, name string, n int) {
	p.t.Helper()
	if err := command.Wait(); err != nil {
		p.t.Fatalf("sipp didn't get its %d messages: %v", n, err)
	}
	log, err := os.ReadFile(filepath.Join(p.dir, name+".log"))
	if err != nil {
		p.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^number=(\d+);`).FindAllSubmatch(log, -1)
	if len(found) != n {
		p.t.Errorf("%d messages arrived, want %d", len(found), n)
	}
	for i, match := range found {
		if got := string(match[1]); got != strconv.Itoa(i+1) {
			p.t.Fatalf("message %s arrives when %d is due", got, i+1)
		}
	}
}
