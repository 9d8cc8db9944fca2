//go:build interop

package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These tests run programs of others against the real one, all on fixed ports:
// run them in a network namespace of their own, in which host is an address of
// this machine. What they assert is what those programs saw.
const (
	host    = "192.0.2.1" // baresip doesn't use loopback
	gateway = host + ":5060"
	inbox   = "15310" // sipp's port for messages
)

// patience is how long something may take that takes a second.
const patience = 30 * time.Second

// newGateway starts the program with a listener for UDP and one for TCP.
func newGateway(t *testing.T, users ...string) *server {
	t.Helper()
	s := newServer(t, gateway)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`["udp://`+gateway+`"]`), []byte(`["udp://`+gateway+`", "tcp://`+gateway+`"]`), 1)
	if !bytes.Contains(text, []byte("tcp://")) {
		t.Fatalf("no listener to add to:\n%s", text)
	}
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.importAccounts(users)
	return s
}

func TestSipp(t *testing.T) {
	s := newGateway(t, "1001", "1002", "1003", "1004")
	p := newPeer(t)

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
	t.Run("500 over TCP, both ways", func(t *testing.T) {
		p.t = t
		log := p.connect("1004", "stream")
		sent := filepath.Join(p.dir, "sent.log")
		p.send("1004", "200", 500, 200, "-t", "t1", "-trace_msg", "-message_file", sent)
		p.inOrder(log, p.answered(sent, 500))
	})
	cdrs := table(t, s.imgate("cdr", "export", "--output", "csv"))
	if len(cdrs) != 2000 {
		t.Errorf("%d CDRs for 2000 messages", len(cdrs))
	}
}

// TestBaresip: a phone registers, sends and receives.
func TestBaresip(t *testing.T) {
	s := newSecureGateway(t, "1001", "1002")
	for _, network := range []string{"udp", "tcp", "tls"} {
		t.Run(network, func(t *testing.T) {
			b := startBaresip(t, network, "1001", "1002")
			b.waitFor(`(?m)^SIP/2\.0 200 OK\r$[^~]*?CSeq: \d+ REGISTER`)
			text := "to the phone over " + network
			s.imgate("send", "1002@sip.example.com", "1001@sip.example.com", text, "--password", password, "--transport", network, "--insecure")
			b.waitFor(`(?m)^MESSAGE sip:1001[^~]*?` + text)

			b.send("from the phone over " + network)
			b.waitFor(`(?m)^SIP/2\.0 202 Accepted\r$[^~]*?CSeq: \d+ MESSAGE`)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			listen := exec.CommandContext(ctx, s.binary, "listen", "1002@sip.example.com", "--count", "1", "--transport", network, "--insecure", "--config", s.config)
			listen.Env = append(os.Environ(), "IMGATE_PASSWORD="+password)
			if out, err := listen.Output(); err != nil || !strings.Contains(string(out), "1001@sip.example.com  from the phone over "+network+"\n") {
				t.Errorf("%v\n%s", err, out)
			}

			b.stop()
			b.waitFor(`(?m)expires=0[^~]*^SIP/2\.0 200 OK\r$[^~]*?CSeq: \d+ REGISTER`)
			if via := "Via: SIP/2.0/" + strings.ToUpper(network) + " " + at(network); !strings.Contains(b.output(), via) {
				t.Errorf("nothing came %q:\n%s", via, b.output())
			}
		})
	}
}

// at is the door of the gateway for a network.
func at(network string) string {
	if network == "tls" {
		return secureGateway
	}
	return gateway
}

// baresip is a phone with an address book.
type baresip struct {
	t       *testing.T
	dir     string
	process *exec.Cmd
}

const phoneControl = "127.0.0.1:15444"

func startBaresip(t *testing.T, network, user string, contacts ...string) *baresip {
	t.Helper()
	program := need(t, "baresip", "baresip-core")
	b := &baresip{t: t, dir: t.TempDir()}
	b.write("config", "sip_listen 0.0.0.0:15070\nmodule_path /usr/lib/baresip/modules\nmodule stdio.so\n"+
		"module_app account.so\nmodule_app contact.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen "+phoneControl+"\n")
	var book strings.Builder
	for _, contact := range contacts {
		fmt.Fprintf(&book, "\"%s\" <sip:%[1]s@sip.example.com>\n", contact)
	}
	b.write("contacts", book.String())
	b.write("accounts", fmt.Sprintf("<sip:%[1]s@sip.example.com;transport=%[2]s>;auth_user=%[1]s;auth_pass=%[3]s;outbound=\"sip:%[4]s;transport=%[2]s\";regint=600\n", user, network, password, at(network)))
	out, err := os.Create(filepath.Join(b.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b.process = exec.Command(program, "-f", b.dir, "-s")
	b.process.Stdout, b.process.Stderr = out, out
	if err := b.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

// need finds a program of others; without it there is no test.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	name, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: install Debian's package %s", program, debian)
	}
	return name
}

func (b *baresip) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *baresip) output() string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "out")) // what can't be read doesn't match
	return string(text)
}

// waitFor waits until the phone's trace of what it sent and received matches.
func (b *baresip) waitFor(expression string) {
	b.t.Helper()
	wanted := regexp.MustCompile(expression)
	if !until(func() bool { return wanted.MatchString(b.output()) }) {
		b.t.Fatalf("the phone doesn't show %s:\n%s", expression, tail([]byte(b.output()), 4000))
	}
}

// until polls another process.
func until(condition func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}

// send has the phone send a text to the current one in its address book.
func (b *baresip) send(text string) {
	b.t.Helper()
	b.command("message", text)
}

// choose makes another one in its address book the current one.
func (b *baresip) choose(user string) {
	b.t.Helper()
	for _, direction := range []string{"contact_prev", "contact_next"} {
		for range 10 { // at the end of the book it stays there
			if strings.Contains(b.command(direction, ""), "sip:"+user+"@") {
				return
			}
		}
	}
	b.t.Fatalf("the phone has no contact %s", user)
}

// command has the phone do something, and returns what it says.
func (b *baresip) command(name, params string) string {
	b.t.Helper()
	control, err := net.DialTimeout("tcp", phoneControl, patience)
	if err != nil {
		b.t.Fatal(err)
	}
	defer control.Close()
	command := fmt.Sprintf(`{"command":%q,"params":%q,"token":"t"}`, name, params)
	fmt.Fprintf(control, "%d:%s,", len(command), command) // a netstring
	answer := make([]byte, 1024)
	if err := control.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	n, err := control.Read(answer)
	if err != nil || !bytes.Contains(answer[:n], []byte(`"ok":true`)) {
		b.t.Fatalf("the phone doesn't %s: %v %s", name, err, answer[:n])
	}
	return string(answer[:n])
}

// stop ends the phone as its user would: it unregisters.
func (b *baresip) stop() {
	if b.process == nil {
		return
	}
	_ = b.process.Process.Signal(os.Interrupt) // it may have ended
	ended := time.AfterFunc(patience, func() { b.process.Process.Kill() })
	b.process.Wait()
	ended.Stop()
	b.process = nil
}

// peer runs sipp.
type peer struct {
	t    *testing.T
	sipp string
	dir  string
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	return &peer{t: t, sipp: need(t, "sipp", "sip-tester"), dir: t.TempDir()}
}

// scenario returns the file of a scenario of testdata.
func (p *peer) scenario(name string) string {
	p.t.Helper()
	file, err := filepath.Abs(filepath.Join("testdata", "sipp", name))
	if err != nil {
		p.t.Fatal(err)
	}
	return file
}

// command prepares a sipp that runs a scenario of testdata.
func (p *peer) command(scenario string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	p.t.Cleanup(cancel)
	command := exec.CommandContext(ctx, p.sipp, append([]string{
		gateway, "-sf", p.scenario(scenario), "-i", host, "-nostdin", "-timeout", "90", "-timeout_error",
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
func (p *peer) data(name string, fields ...string) string {
	p.t.Helper()
	name = filepath.Join(p.dir, name+".csv")
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
	p.run("register", p.command("register.xml", "-m", "1", "-p", "15311", "-key", "contact", inbox, "-inf", p.data("register", user, credentials(user))))
}

// send sends n messages and expects each to be answered as given.
func (p *peer) send(to, answer string, n, rate int, args ...string) {
	p.t.Helper()
	scenario, err := os.ReadFile(filepath.Join("testdata", "sipp", "message.xml"))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.dir, "message-"+answer+".xml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(scenario), "[answer]", answer)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	command := p.command("message.xml", append([]string{
		"-m", strconv.Itoa(n), "-r", strconv.Itoa(rate), "-p", "15312", "-inf", p.data("send", "1001", credentials("1001"), to),
	}, args...)...)
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

// connect starts a sipp that registers over TCP and takes what then comes on its
// connection. It returns where sipp writes that down.
func (p *peer) connect(user, name string) string {
	p.t.Helper()
	log := filepath.Join(p.dir, name+".log")
	command := p.command("device.xml", "-m", "1", "-t", "t1", "-p", "15313", "-inf", p.data("device", user, credentials(user)),
		"-oocsf", p.scenario("receive.xml"), "-trace_msg", "-message_file", log)
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	registered := regexp.MustCompile(`SIP/2\.0 200 OK\r\n(.*\r\n)*CSeq: 2 REGISTER`)
	if !until(func() bool { text, _ := os.ReadFile(log); return registered.Match(text) }) {
		p.t.Fatal("sipp can't register over TCP")
	}
	return log
}

// wait waits until the receiver has its messages: each number once, in order.
func (p *peer) wait(command *exec.Cmd, name string, n int) {
	p.t.Helper()
	if err := command.Wait(); err != nil {
		p.t.Fatalf("sipp didn't get its %d messages: %v", n, err)
	}
	due := make([]string, n)
	for i := range due {
		due[i] = strconv.Itoa(i + 1)
	}
	p.inOrder(filepath.Join(p.dir, name+".log"), due)
}

// answered returns the numbers of the messages in the order in which a sipp has sent
// them with its answer to the challenge: of several challenges that come at once, it
// doesn't answer the first one first.
func (p *peer) answered(name string, n int) (numbers []string) {
	p.t.Helper()
	log, err := os.ReadFile(name)
	if err != nil {
		p.t.Fatal(err)
	}
	request := regexp.MustCompile(`CSeq: 2 MESSAGE\r\n(?:[^\r\n]+\r\n)*\r\n *number=(\d+);`)
	for _, match := range request.FindAllSubmatch(log, -1) {
		numbers = append(numbers, string(match[1]))
	}
	if len(numbers) != n {
		p.t.Fatalf("sipp has sent %d messages with credentials, want %d", len(numbers), n)
	}
	return numbers
}

// inOrder checks that the messages in a log are these, each once and in this order.
func (p *peer) inOrder(name string, due []string) {
	p.t.Helper()
	number := regexp.MustCompile(`(?m)^number=(\d+);`)
	numbers := func() [][][]byte {
		log, _ := os.ReadFile(name) // it is written by another process
		return number.FindAllSubmatch(log, -1)
	}
	until(func() bool { return len(numbers()) >= len(due) })
	found := numbers()
	if len(found) != len(due) {
		p.t.Errorf("%d messages arrived, want %d", len(found), len(due))
	}
	for i, match := range found[:min(len(found), len(due))] {
		if got := string(match[1]); got != due[i] {
			p.t.Fatalf("message %s arrives when %s is due", got, due[i])
		}
	}
}
