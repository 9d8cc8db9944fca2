//go:build interop

package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"
)

// kannelNumber is that of the account of which Kannel binds.
const kannelNumber = "447700900200"

// TestKannel: Kannel binds to us as an ESME, and does so again when we come back.
func TestKannel(t *testing.T) {
	g := newSMPP(t, "")
	g.imgate("account", "add", "kannel@sms.example.com", "--password", esmeSecret, "--balance", "100.00", "--identity", "+"+kannelNumber)
	inbox := g.listen("1001")
	k := startKannel(t, g.door)

	t.Run("long text to a subscriber", func(t *testing.T) {
		k.submit(number, cyrillic)
		onceIn(t, inbox, cyrillic)
		if got := inbox.matching(isMessage); len(got) != 1 || got[0].text("from") != "+"+kannelNumber+"@sms.example.com" {
			t.Errorf("%v", got)
		}
	})
	t.Run("long text from a subscriber", func(t *testing.T) {
		g.send("+"+kannelNumber+"@sms.example.com", cyrillic)
		k.waitFor(cyrillic)
		if got := k.received(); len(got) != 1 || got[0].from != "+"+number && got[0].from != number {
			t.Errorf("%v", got)
		}
	})
	t.Run("nothing is lost when we are away", func(t *testing.T) {
		g.stop()
		k.waitForStatus("re-connecting")
		for i := range 10 {
			k.submit(number, fmt.Sprintf("while you were away %d", i))
		}
		g.start()
		g.send("+"+kannelNumber+"@sms.example.com", "before you are back")
		k.waitForStatus("online")
		k.waitFor("before you are back")
		for i := range 10 {
			onceIn(t, inbox, fmt.Sprintf("while you were away %d", i))
		}
	})
	t.Run("nothing is lost when we are killed", func(t *testing.T) {
		for i := range 20 {
			k.submit(number, fmt.Sprintf("when you died %d", i))
			if i == 10 {
				g.kill()
			}
		}
		g.start()
		for i := range 20 {
			text := fmt.Sprintf("when you died %d", i)
			inbox.waitFor(text, 1, func(e event) bool { return e["text"] == text })
		}
	})
	if n := len(k.received()); n != 2 {
		t.Errorf("Kannel got %d messages, want 2: %v", n, k.received())
	}
}

// kannel is a bearerbox with a smsbox, and what they bring.
type kannel struct {
	t           *testing.T
	dir         string
	admin, send string // where they listen for HTTP

	mu       sync.Mutex
	messages []mobileOriginated
}

// mobileOriginated is what Kannel brings by HTTP.
type mobileOriginated struct{ from, to, text string }

// startKannel runs Kannel and waits until it has bound.
func startKannel(t *testing.T, door string) *kannel {
	t.Helper()
	k := &kannel{t: t, dir: t.TempDir(), admin: freePort(t, "tcp"), send: freePort(t, "tcp")}
	collector := httptest.NewServer(http.HandlerFunc(k.collect))
	t.Cleanup(collector.Close)
	text, err := os.ReadFile(filepath.Join("testdata", "kannel", "kannel.conf"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"{dir}", k.dir, "{admin}", port(t, k.admin), "{send}", port(t, k.send), "{box}", port(t, freePort(t, "tcp")),
		"{port}", port(t, door), "{collector}", strings.TrimPrefix(collector.URL, "http://"),
	).Replace(string(text))
	file := filepath.Join(k.dir, "kannel.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	k.run("bearerbox", file)
	k.waitForStatus("online")
	k.run("smsbox", file)
	return k
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, port := splitAddress(t, address)
	return port
}

// run runs one of Kannel's programs, until the test ends.
func (k *kannel) run(name, config string) {
	k.t.Helper()
	command := exec.Command(need(k.t, name, "kannel"), config)
	said := &lockedBuffer{}
	command.Stdout, command.Stderr = said, said
	if err := command.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // it may have ended
		killed := time.AfterFunc(patience/3, func() { command.Process.Kill() })
		command.Wait()
		killed.Stop()
		if k.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(k.dir, name+".log"))
			k.t.Logf("%s said:\n%s", name, tail(log, 4000))
		}
	})
}

// waitForStatus waits until Kannel says that its bind to us is so.
func (k *kannel) waitForStatus(word string) {
	k.t.Helper()
	var status string
	if !until(func() bool {
		status = k.get("http://" + k.admin + "/status.txt?password=admin")
		return strings.Contains(status, "("+word)
	}) {
		k.t.Fatalf("Kannel isn't %s:\n%s", word, status)
	}
}

// get reads a page of Kannel's; empty if it isn't there.
func (k *kannel) get(page string) string {
	answer, err := http.Get(page)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// submit has Kannel send a text from its number.
func (k *kannel) submit(to, text string) {
	k.t.Helper()
	query := url.Values{
		"username": {"test"}, "password": {"test"}, "from": {kannelNumber}, "to": {to},
		"coding": {"2"}, "charset": {"UTF-8"}, "text": {text},
	}
	var said string
	if !until(func() bool {
		said = k.get("http://" + k.send + "/cgi-bin/sendsms?" + query.Encode())
		return said != ""
	}) || !strings.HasPrefix(said, "0: ") && !strings.HasPrefix(said, "3: ") {
		k.t.Fatalf("Kannel doesn't send %q: %s", text, said)
	}
}

// collect takes what Kannel has received.
func (k *kannel) collect(_ http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	text := query.Get("text")
	if query.Get("coding") == "2" {
		text = fromUTF16(text)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.messages = append(k.messages, mobileOriginated{query.Get("from"), query.Get("to"), text})
}

func fromUTF16(octets string) string {
	units := make([]uint16, len(octets)/2)
	for i := range units {
		units[i] = uint16(octets[2*i])<<8 | uint16(octets[2*i+1])
	}
	return string(utf16.Decode(units))
}

func (k *kannel) received() []mobileOriginated {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.messages)
}

// waitFor waits until Kannel has brought a text.
func (k *kannel) waitFor(text string) {
	k.t.Helper()
	if !until(func() bool {
		return slices.ContainsFunc(k.received(), func(m mobileOriginated) bool { return m.text == text })
	}) {
		k.t.Fatalf("Kannel doesn't bring %q but %q", text, k.received())
	}
}
