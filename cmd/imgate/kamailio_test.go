//go:build interop

package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// proxy is the address that examples/cluster/kamailio.cfg listens at. The
// network namespace of these tests has it.
const proxy = "192.0.2.10"

// TestKamailio: the proxy of examples/cluster, with its two nodes. Clients know
// one address, and what happens to the nodes behind it they don't see.
func TestKamailio(t *testing.T) {
	a, b := newProxied(t)
	a.start()
	a.importAccounts([]string{"1001", "1002", "1003"})
	b.launch()
	a.eventually("both nodes are well", func() bool { return isWell(a) })
	startKamailio(t)
	c := &proxied{t: t, node: a}
	inbox := c.listen("1002")

	c.deliver("through the first node")
	c.keep("1003", "kept by the first node")
	a.imgate("cluster", "handover")
	c.deliver("after a hand-over")
	b.kill()
	c.deliverAgain("after a death")
	c.keep("1003", "kept by the first node again")

	later := c.listen("1003")
	later.waitFor("kept by the first node", "kept by the first node again")
	inbox.waitFor(c.delivered...)
	inbox.once()
}

// newProxied prepares the nodes of examples/cluster on a database of their own.
// They trust the proxy to bring requests of all clients.
func newProxied(t *testing.T) (a, b *server) {
	t.Helper()
	binary := build(t)
	database := postgrestest.Start(t).URL()
	dir := t.TempDir()
	node := func(name, sip, admin string) *server {
		return exampleNode(t, binary, filepath.Join(dir, name), name, sip, admin, database)
	}
	return node("a", "127.0.0.1:5060", "127.0.0.1:8060"), node("b", "127.0.0.1:5062", "127.0.0.1:8061")
}

func exampleNode(t *testing.T, binary, dir, name, sip, admin, database string) *server {
	t.Helper()
	t.Setenv("DB_PASSWORD", "secret")
	text, err := os.ReadFile(filepath.Join(exampleDir, name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := replaceOnce(t, string(text), "postgres://imgate@127.0.0.1:5432/imgate", database)
	config = replaceOnce(t, config, "data_dir: ./"+name, "data_dir: "+filepath.Join(dir, "data"))
	config += fmt.Sprintf("    peers: [{name: kamailio, addresses: [%q], dispatches: true}]\n", proxy)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, binary: binary, config: filepath.Join(dir, "imgate.yaml"), sip: sip, admin: admin}
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the log of node %s ends:\n%s", name, tail([]byte(s.logged()), 4000))
		}
	})
	return s
}

var exampleDir = filepath.Join("..", "..", "examples", "cluster")

// isWell tells whether one node is active and the other could take over.
func isWell(s *server) bool {
	_, _, status := s.try("cluster", "status", "--nodes", "2")
	return status == 0
}

// startKamailio runs the proxy with the files of the example where they are, and
// waits until it sends to a node.
func startKamailio(t *testing.T) {
	t.Helper()
	list, err := filepath.Abs(filepath.Join(exampleDir, "dispatcher.list"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(exampleDir, "kamailio.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	runKamailio(t, replaceOnce(t, string(text), "/etc/kamailio/dispatcher.list", list))
}

// runKamailio runs a Kamailio at the address of the proxy until stop is called or
// the test ends, and waits until OPTIONS are answered there.
func runKamailio(t *testing.T, config string) (stop func()) {
	t.Helper()
	program := need(t, "kamailio", "kamailio")
	dir := t.TempDir()
	file := filepath.Join(dir, "kamailio.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// -DD: in the foreground; -n: how many processes read packets; -m: MB that they share.
	process := exec.Command(program, "-DD", "-E", "-n", "2", "-m", "32", "-f", file, "-Y", dir)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = process.Process.Signal(os.Interrupt) // it may have ended
		late := time.AfterFunc(patience, func() { process.Process.Kill() })
		process.Wait()
		late.Stop()
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Kamailio's log ends:\n%s", tail(text, 4000))
		}
	})
	if !until(answersOptions) {
		t.Fatal("no OPTIONS is answered through Kamailio")
	}
	return stop
}

// answersOptions asks once through the proxy whether a node takes traffic.
func answersOptions() bool {
	conn, err := net.Dial("udp", proxy+":5060")
	if err != nil {
		return false
	}
	defer conn.Close()
	fmt.Fprintf(conn, "OPTIONS sip:sip.example.com SIP/2.0\r\nVia: SIP/2.0/UDP %[1]s;rport;branch=z9hG4bK%[2]d\r\nMax-Forwards: 70\r\n"+
		"From: <sip:probe@sip.example.com>;tag=1\r\nTo: <sip:sip.example.com>\r\nCall-ID: %[2]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
		conn.LocalAddr(), time.Now().UnixNano())
	answer := make([]byte, 2048)
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	n, err := conn.Read(answer)
	return err == nil && strings.HasPrefix(string(answer[:n]), "SIP/2.0 200 ")
}

// proxied are clients who know the proxy alone.
type proxied struct {
	t         *testing.T
	node      *server
	delivered []string // texts of which a sender was told that the device has them
}

// send sends a message from 1001, once, and returns what its sender is told.
func (c *proxied) send(to, text string) string {
	c.t.Helper()
	out, problems, _ := c.node.try("send", "1001@sip.example.com", to+"@sip.example.com", text, "--password", password, "--server", proxy+":5060")
	return out + problems
}

// deliver sends a message that its recipient gets at once.
func (c *proxied) deliver(text string) {
	c.t.Helper()
	c.sends("1002", text, "delivered: ")
	c.delivered = append(c.delivered, text)
}

// keep sends a message to somebody who isn't there.
func (c *proxied) keep(to, text string) {
	c.t.Helper()
	c.sends(to, text, "accepted: on its way")
}

func (c *proxied) sends(to, text, want string) {
	c.t.Helper()
	if said := c.send(to, text); !strings.Contains(said, want) {
		c.t.Fatalf("%q: the sender is told %q, want %q", text, said, want)
	}
}

// deliverAgain sends a message again and again until a node is active: till then
// the sender is told that none is.
func (c *proxied) deliverAgain(text string) {
	c.t.Helper()
	var said string
	if !until(func() bool {
		said = c.send("1002", text)
		return !strings.Contains(said, "refused (503 ")
	}) || !strings.Contains(said, "delivered: ") {
		c.t.Fatalf("%q: the sender is told %q", text, said)
	}
	c.delivered = append(c.delivered, text)
}

// arrivals is what a client prints that listens.
type arrivals struct {
	t    *testing.T
	file string
}

// listen registers a client through the proxy, until the test ends.
func (c *proxied) listen(user string) arrivals {
	c.t.Helper()
	out, err := os.Create(filepath.Join(c.t.TempDir(), "out"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(c.t.Context())
	command := exec.CommandContext(ctx, c.node.binary, "listen", user+"@sip.example.com", "--password", password, "--server", proxy+":5060")
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		cancel()
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cancel()
		command.Wait()
	})
	a := arrivals{c.t, out.Name()}
	a.waitFor("listening as " + user)
	return a
}

func (a arrivals) text() string {
	text, _ := os.ReadFile(a.file) // it is written by another process
	return string(text)
}

// waitFor waits until these texts have been printed, in this order.
func (a arrivals) waitFor(texts ...string) {
	a.t.Helper()
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = regexp.QuoteMeta(text)
	}
	inOrder := regexp.MustCompile(`(?s)` + strings.Join(quoted, `\b.*`))
	if !until(func() bool { return inOrder.MatchString(a.text()) }) {
		a.t.Fatalf("%q doesn't arrive, in this order, but\n%s", texts, a.text())
	}
}

// once checks that nothing was shown twice.
func (a arrivals) once() {
	a.t.Helper()
	lines := regexp.MustCompile(`(?m)  1001@sip\.example\.com  (.*)$`).FindAllString(a.text(), -1)
	slices.Sort(lines)
	if n := len(slices.Compact(slices.Clone(lines))); n != len(lines) {
		a.t.Errorf("%d messages are there twice:\n%s", len(lines)-n, a.text())
	}
}
