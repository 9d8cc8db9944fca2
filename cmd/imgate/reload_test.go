//go:build process

package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/transports/sip/ua"
)

// reload changes the configuration file and has the server take it.
func (s *server) reload(change func(text string) string) (changed string) {
	s.t.Helper()
	before, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	after := change(string(before))
	if after == string(before) {
		s.t.Fatal("the change changes nothing")
	}
	if err := os.WriteFile(s.config, []byte(after), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.imgate("reload", "--config", s.config)
}

// TestReloadKeepsStreams: a door that a reload doesn't change keeps its TCP
// connections, and those who have registered over them, whether the price
// changes or another door is opened.
func TestReloadKeepsStreams(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob", "carol"})
	raw := registerOverTCP(t, s.sip, "bob")
	defer raw.Close()
	requests := bufio.NewReader(raw)
	box := newMailbox()
	carol := dialOver(t, s, "tcp", "carol", box.take)
	defer carol.Close()
	register(t, carol)
	alice := dial(t, s, "alice", nil)
	defer alice.Close()

	second := freePort(t, "tcp")
	for i, c := range []struct {
		name, changed string
		change        func(string) string
	}{
		{"the price", "charging", func(text string) string { return strings.Replace(text, `price: "0.01"`, `price: "0.02"`, 1) }},
		{"another transport", "transports.second", func(text string) string {
			return text + fmt.Sprintf("  second:\n    plugin: sip\n    listen: [\"tcp://%s\"]\n    domains: [sip.example.com]\n", second)
		}},
		{"limits", "limits", func(text string) string { return text + "limits: {contacts: 5}\n" }},
	} {
		began := time.Now()
		if changed := s.reload(c.change); !strings.Contains(changed, c.changed) {
			t.Errorf("%s: reload says %q", c.name, changed)
		}
		t.Logf("%s: reloaded in %v", c.name, time.Since(began))
		text := fmt.Sprint("after ", i, " ", c.name)
		answered := make(chan ua.Result, 1)
		go func() { answered <- say(t, alice, "bob", text) }()
		takeOverTCP(t, raw, requests, text)
		if result := <-answered; result.Code != 200 {
			t.Errorf("%s: a message to the raw connection is answered %d", c.name, result.Code)
		}
		if result := say(t, alice, "carol", text); result.Code != 200 {
			t.Errorf("%s: a message to the agent is answered %d", c.name, result.Code)
		}
		if result := say(t, carol, "carol", text+" from herself"); result.Code != 200 {
			t.Errorf("%s: a message over an old connection is answered %d", c.name, result.Code)
		}
	}
	if n := box.distinct(); n != 6 {
		t.Errorf("%d texts arrived at the agent, want 6", n)
	}
	opened, err := net.DialTimeout("tcp", second, quickly)
	if err != nil {
		t.Fatalf("the other transport: %v", err)
	}
	opened.Close()
}

// takeOverTCP reads the next request, wants a text in it, and answers 200.
func takeOverTCP(t *testing.T, conn net.Conn, requests *bufio.Reader, text string) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(quickly))
	var header []string
	length := 0
	for {
		line, err := requests.ReadString('\n')
		if err != nil {
			t.Fatalf("%q doesn't come over the connection: %v", text, err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" && len(header) > 0 {
			break
		}
		if line != "" {
			header = append(header, line)
		}
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length) // other fields don't fit
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(requests, body); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(header[0], "MESSAGE ") || string(body) != text {
		t.Errorf("%q with %q came, want %q", header[0], body, text)
	}
	var answer bytes.Buffer
	answer.WriteString("SIP/2.0 200 OK\r\n")
	for _, field := range header[1:] {
		name, _, _ := strings.Cut(field, ":")
		if slices.Contains([]string{"Via", "From", "Call-ID", "CSeq"}, name) {
			answer.WriteString(field + "\r\n")
		}
		if name == "To" {
			answer.WriteString(field + ";tag=raw\r\n")
		}
	}
	answer.WriteString("Content-Length: 0\r\n\r\n")
	if _, err := conn.Write(answer.Bytes()); err != nil {
		t.Fatal(err)
	}
}
