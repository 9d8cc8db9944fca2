package sip

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua"
)

func TestFarewell(t *testing.T) {
	storageDown := message.FailForNow(message.StorageDown, "gone")
	draining := message.FailForNow(message.Draining, "the node stops")
	type look struct {
		after    time.Duration // the look before
		inactive *message.Failure
		clients  int
		due      int
	}
	for name, looks := range map[string][]look{
		"active":                         {{0, nil, 9, 0}, {time.Hour, nil, 9, 0}},
		"a few leave together":           {{0, standby, 9, 0}, {time.Second - 1, standby, 9, 0}, {1, standby, 9, 10}, {1, standby, 0, 0}},
		"thousands bit by bit":           {{0, standby, 8000, 0}, {time.Second, standby, 8000, 400}, {1, standby, 7600, 400}, {1, standby, 20, 400}},
		"one that comes late":            {{0, standby, 0, 0}, {time.Hour, standby, 1, 10}},
		"active again in time":           {{0, standby, 9, 0}, {time.Second - 1, nil, 9, 0}, {time.Hour, standby, 9, 0}},
		"active again while they leave":  {{0, standby, 30, 0}, {time.Second, standby, 30, 10}, {1, nil, 20, 0}, {time.Hour, standby, 20, 0}},
		"one that is about to end":       {{0, draining, 9, 0}, {time.Hour, draining, 9, 0}},
		"without storage":                {{0, storageDown, 9, 0}, {30*time.Second - 1, storageDown, 9, 0}, {1, storageDown, 9, 10}},
		"without storage, then standby":  {{0, storageDown, 9, 0}, {20 * time.Second, standby, 9, 0}, {time.Second, standby, 9, 10}},
		"a standby that loses its store": {{0, standby, 9, 0}, {500 * time.Millisecond, storageDown, 9, 0}, {time.Second, storageDown, 9, 0}},
	} {
		var f farewell
		now := time.Now()
		for i, l := range looks {
			now = now.Add(l.after)
			if got := f.due(l.inactive, l.clients, now); got != l.due {
				t.Errorf("%s: look %d: %d are to leave, want %d", name, i+1, got, l.due)
			}
		}
	}
}

// proxyAddress is a peer's on this machine, beside that of all others.
const proxyAddress = "127.0.0.2"

func dialFrom(t *testing.T, address string, d *Door) *client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", addressOf(d, "tcp").String())
	if err != nil {
		t.Skipf("%s can't be used here: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: &packets{Conn: conn, network: "tcp", reader: bufio.NewReader(conn)}, algorithm: "MD5", qop: "auth", username: "1001"}
}

// TestClientsLeaveAStandby: those who have registered over a connection lose it,
// once they have their answers; others stay.
func TestClientsLeaveAStandby(t *testing.T) {
	g := &gate{hold: make(chan struct{})}
	d := openDoor(t, g, func(c *Config) {
		onAll(t, "127.0.0.1")(c)
		c.Peers = []Peer{{Name: "proxy", Addresses: []string{proxyAddress}}}
	})
	named, nameless, waits, stranger := newClientOver(t, d, "tls"), newClientOver(t, d, "wss"), newClientOver(t, d, "tcp"), newClientOver(t, d, "ws")
	proxy := dialFrom(t, proxyAddress, d)
	const contact = "Contact: <sip:1001@192.0.2.9;transport=tcp>"
	for i, c := range []*client{named, nameless, waits, proxy} {
		c.login()
		c.cseq = 10 * (i + 1)
		want(t, c.register(contact+map[bool]string{true: `;+sip.instance="<urn:uuid:1>"`}[c == named]+"\r\n"), "200 OK")
	}
	stranger.login()
	waits.send(waits.request("MESSAGE", bob, waits.credentials("MESSAGE", bob), ""))
	waitFor(t, func() bool { return len(g.submitted()) == 1 })

	began := time.Now()
	g.becomes(standby, plugin.Tenure{})
	for _, c := range []*client{named, nameless} {
		if _, err := c.conn.reader.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("the connection of a client ends with %v", err)
		}
	}
	if took := time.Since(began); took < stayFor-watchEvery {
		t.Errorf("they had %v for what was under way", took)
	}
	for _, c := range []*client{stranger, proxy, waits} {
		c.send(c.request("OPTIONS", bob, "", ""))
		want(t, c.receive(), "503 Service Unavailable")
	}
	close(g.hold)
	want(t, waits.receive(), "202 Accepted")
	if _, err := waits.conn.reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection of a client that has its answer ends with %v", err)
	}
	waitFor(t, func() bool {
		return d.Counts().EndedDismissed+d.Counts().EndedByPeer == 3 && d.Counts().Connections == 2
	})
	if n := d.Counts().EndedDismissed; n != 3 {
		t.Errorf("%d were dismissed", n)
	}
	if n := d.streams.countClients(); n != 0 {
		t.Errorf("%d are remembered", n)
	}
}

// TestClientFollowsTheActiveNode: a client over TCP that knows both nodes is
// reached through the next one soon after the first isn't active any more.
func TestClientFollowsTheActiveNode(t *testing.T) {
	key := [32]byte{7}
	one := &gate{tenure: plugin.Tenure{Fence: 1, Since: time.Now(), Key: key}}
	two := &gate{inactive: standby}
	first, second := openDoor(t, one, nil), openDoor(t, two, nil)
	heard := make(chan string, 1)
	agent, err := ua.Dial(t.Context(), ua.Config{
		Address: account1001.Identities[0], Password: password, TCP: addressOf(first, "tcp").String(),
		Others: []ua.Server{{TCP: addressOf(second, "tcp").String()}},
		Handle: func(m ua.Incoming) bool { heard <- string(m.Body); return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	granted, err := agent.Register(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		agent.KeepRegistered(ctx, granted, func(err error) { t.Log(err) })
	}()
	defer func() {
		cancel()
		<-kept
	}()

	began := time.Now()
	one.becomes(standby, plugin.Tenure{})
	two.becomes(nil, plugin.Tenure{Fence: 2, Since: time.Now(), Key: key})
	waitFor(t, func() bool { return len(two.bound()) == 1 })
	t.Logf("registered again after %v", time.Since(began).Round(time.Millisecond))
	if !strings.HasPrefix(two.bound()[0].Flow, "tcp;") {
		t.Error(two.bound()[0].Flow)
	}
	sent := second.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &two.bound()[0]})
	if r := <-sent; r.err != nil || <-heard != string(testMessage().Body) {
		t.Error(r.err)
	}
}
