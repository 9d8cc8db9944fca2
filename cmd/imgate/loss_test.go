//go:build interop

package main_test

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// TestLoss: of all datagrams 30 % are lost, both ways, and still every message
// arrives. What comes again has the same Call-ID, From tag and CSeq, so that the
// phone shows it once; the gateway counts that it was sent again.
func TestLoss(t *testing.T) {
	const senders, each = 25, 4
	s := newGateway(t, append(users(senders), "1000")...)
	inbox := run(t, exec.Command(s.binary, "listen", "1000@sip.example.com", "--json", "--server", gateway, "--transport", "udp", "--config", s.config), "IMGATE_PASSWORD="+password)
	if !until(func() bool { return strings.Contains(inbox.said.String(), "listening as") }) {
		t.Fatalf("the phone doesn't register: %s", inbox.said.String())
	}
	lose(t, 30)

	var mu sync.Mutex
	answered := map[string]bool{}
	var sending sync.WaitGroup
	for _, user := range users(senders) {
		sending.Go(func() {
			taken := sayAll(t, user, each)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(answered, taken)
		})
	}
	sending.Wait()
	if len(answered) < senders*each*9/10 {
		t.Fatalf("only %d of %d messages are answered", len(answered), senders*each)
	}
	seen := map[string]int{}
	for deadline := time.Now().Add(lossPatience); time.Now().Before(deadline) && !covers(seen, answered); time.Sleep(100 * time.Millisecond) {
		clear(seen)
		for _, e := range inbox.matching(isText) {
			seen[e.text("text")]++
		}
	}
	for text := range answered {
		if seen[text] != 1 {
			t.Errorf("%q was acknowledged and is shown %d times", text, seen[text])
		}
	}
	for text, times := range seen {
		if times > 1 {
			t.Errorf("%q is shown %d times", text, times)
		}
	}
	for _, direction := range []string{"received", "sent"} {
		if n := s.metric(fmt.Sprintf(`imgate_sip_retransmissions_total{direction=%q,transport="sip"}`, direction)); n < 10 {
			t.Errorf("%g requests are counted as %s again", n, direction)
		}
	}
	t.Logf("requests that came again: %g; that were sent again: %g; messages that came again in another transaction: %d",
		s.metric(`imgate_sip_retransmissions_total{direction="received",transport="sip"}`),
		s.metric(`imgate_sip_retransmissions_total{direction="sent",transport="sip"}`), strings.Count(inbox.said.String(), "came again"))
}

// lossPatience is enough for some attempts that each time out.
const lossPatience = 3 * time.Minute

func covers(seen map[string]int, wanted map[string]bool) bool {
	for text := range wanted {
		if seen[text] == 0 {
			return false
		}
	}
	return true
}

func isText(e event) bool { return e["type"] == "text/plain" }

// users are so many names of users.
func users(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint(1001+i))
	}
	return names
}

// sayAll sends messages, one after the other, and returns those that were answered:
// with as much loss one in a thousand times no answer comes within 64*T1.
func sayAll(t *testing.T, user string, n int) map[string]bool {
	agent, err := ua.Dial(t.Context(), ua.Config{Address: message.Address{User: user, Host: "sip.example.com"}, Password: password, UDP: gateway})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer agent.Close()
	taken := map[string]bool{}
	for i := range n {
		text := fmt.Sprintf("%s %d", user, i)
		result, err := agent.Message(t.Context(), message.Address{User: "1000", Host: "sip.example.com"}, "text/plain", []byte(text), ua.Options{})
		switch {
		case errors.Is(err, ua.ErrNoAnswer):
		case err != nil || !result.Taken():
			t.Errorf("%s: %+v, %v", text, result, err)
		default:
			taken[text] = true
		}
	}
	return taken
}

// lose has the kernel drop so many of a hundred SIP datagrams, until the test ends.
func lose(t *testing.T, percent int) {
	t.Helper()
	nft := func(rules string) {
		command := exec.Command(need(t, "nft", "nftables"), "-f", "-")
		command.Stdin = strings.NewReader(rules)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	nft(fmt.Sprintf(`table inet loss {
	chain arrivals {
		type filter hook input priority 0;
		udp dport 5060 numgen random mod 100 < %d drop
		udp sport 5060 numgen random mod 100 < %[1]d drop
	}
}
`, percent))
	t.Cleanup(func() { nft("delete table inet loss\n") })
}
