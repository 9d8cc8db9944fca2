package sip

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestContractOverUDP(t *testing.T) {
	plugintest.Transport(t, func(plugintest.T) plugintest.TransportHarness {
		n := &neighbourhood{network: "udp", listen: "udp://127.0.0.1:0"}
		return plugintest.TransportHarness{Open: n.open, Say: n.say, Register: n.register, Route: n.routeOverUDP}
	})
}

func TestContractOverTCP(t *testing.T) {
	plugintest.Transport(t, func(plugintest.T) plugintest.TransportHarness {
		n := &neighbourhood{network: "tcp", listen: "tcp://127.0.0.1:0"}
		return plugintest.TransportHarness{Open: n.open, Say: n.say, Register: n.register, Route: n.routeOverStream}
	})
}

// neighbourhood is a door and the user agents around it, which are as simple as
// they can be: what they read, they read as a careless device would.
type neighbourhood struct {
	door    *Door
	network string
	listen  string
	tls     TLS
}

// open opens the first door on any port, and each later one on the same.
func (n *neighbourhood) open(t plugintest.T) plugin.Transport {
	if n.door != nil && len(n.door.Addrs()) > 0 { // else it was never served
		n.listen = n.network + "://" + n.door.Addrs()[0].String()
	}
	config := defaults
	config.Listen, config.Domains = []string{n.listen}, []string{"a.example"}
	config.Limits.UDPMessage = wire.MaxDatagram
	if n.tls != (TLS{}) {
		config.TLS = n.tls
	}
	door, err := New(t.Context(), plugin.Env{Instance: "sip"}, config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	n.door = door
	return door
}

// call is a request of a user agent's.
type call struct {
	method, uri, to, id string
	from                message.Address
	secret              string
	headers, body       string
}

func (n *neighbourhood) say(ctx context.Context, messages ...plugintest.Said) []plugintest.Reply {
	var calls []call
	for _, s := range messages {
		uri := "sip:" + s.To.String()
		calls = append(calls, call{
			method: "MESSAGE", uri: uri, to: uri, id: s.ID, from: s.From, secret: s.Secret,
			headers: "Content-Type: " + s.ContentType + "\r\n", body: string(s.Body),
		})
	}
	return n.exchange(ctx, calls)
}

func (n *neighbourhood) register(ctx context.Context, aor message.Address, secret string) plugintest.Reply {
	return n.exchange(ctx, []call{{
		method: "REGISTER", uri: "sip:" + aor.Host, to: "sip:" + aor.String(), id: "registration", from: aor, secret: secret,
		headers: "Contact: <sip:" + aor.User + "@127.0.0.1:5099>\r\n",
	}})[0]
}

// exchange makes requests from one socket. The first is made without
// credentials, to be challenged.
func (n *neighbourhood) exchange(ctx context.Context, calls []call) []plugintest.Reply {
	replies := slices.Repeat([]plugintest.Reply{plugintest.Silence}, len(calls))
	conn, err := dialDoor(n.door, n.network)
	if err != nil {
		return replies
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()

	challenge, err := ask(conn, calls[0].write(conn, 1, ""))
	if err != nil {
		return replies
	}
	nonce := nonceIn.FindStringSubmatch(challenge)
	if !strings.HasPrefix(challenge, "SIP/2.0 401 ") || nonce == nil {
		replies[0] = replyOf(challenge)
		return replies
	}
	for i, c := range calls {
		_, _ = conn.Write([]byte(c.write(conn, 2, c.credentials(nonce[1], i+1)))) // who gets nothing doesn't answer
	}
	for range calls {
		response, err := conn.next()
		if err != nil {
			break
		}
		id := fieldOf(response, "Call-ID")
		if i := slices.IndexFunc(calls, func(c call) bool { return c.id == id }); i >= 0 {
			replies[i] = replyOf(response)
		}
	}
	return replies
}

func ask(conn *packets, request string) (string, error) {
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	return conn.next()
}

// write makes the request. What identifies it but for its transaction depends on
// the call alone, so the same call is a repeat.
func (c call) write(conn *packets, cseq int, credentials string) string {
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%s\r\nMax-Forwards: 70\r\n"+
		"From: <sip:%s>;tag=of-%s\r\nTo: <%s>\r\nCall-ID: %s\r\nCSeq: %d %s\r\n%s%sContent-Length: %d\r\n\r\n%s",
		c.method, c.uri, strings.ToUpper(conn.network), conn.LocalAddr(), message.NewPublicID(),
		c.from, c.from.User, c.to, c.id, cseq, c.method, credentials, c.headers, len(c.body), c.body)
}

func (c call) credentials(nonce string, count int) string {
	d := plugin.Digest{
		Method: c.method, Username: c.from.User, Realm: c.from.Host, Nonce: nonce, URI: c.uri,
		Algorithm: "MD5", QOP: "auth", NC: fmt.Sprintf("%08x", count), CNonce: "c",
	}
	return fmt.Sprintf("Authorization: Digest username=%q, realm=%q, nonce=%q, uri=%q, algorithm=MD5, qop=auth, nc=%s, cnonce=%q, response=%q\r\n",
		d.Username, d.Realm, d.Nonce, d.URI, d.NC, d.CNonce, respond(&d, c.secret))
}

// replyOf reads a response. 503 is about the node, and Retry-After says that a
// request isn't refused for good.
func replyOf(response string) plugintest.Reply {
	switch code := status(response); {
	case strings.HasPrefix(code, "2"):
		return plugintest.Taken
	case strings.HasPrefix(code, "503 "):
		return plugintest.Elsewhere
	case fieldOf(response, "Retry-After") != "":
		return plugintest.Later
	}
	return plugintest.Refused
}

// routeOverUDP makes a device that is reached over a flow, as if it had
// registered.
func (n *neighbourhood) routeOverUDP(t plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("the device can't listen: %v", err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { listenFor(conn, hear, &tasks) })
	t.Cleanup(func() {
		conn.Close()
		tasks.Wait()
	})
	return plugin.Route{Transport: "sip", Binding: &plugin.Binding{
		Contact: fmt.Sprintf("sip:bob@%s", conn.LocalAddr()),
		Flow:    fmt.Sprintf("udp;%s;%s", n.door.Addrs()[0], conn.LocalAddr()),
	}}
}

// routeOverStream makes a device that registers: only so its connection has a name.
func (n *neighbourhood) routeOverStream(t plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	conn, err := dialDoor(n.door, n.network)
	if err != nil {
		t.Fatalf("the device can't connect: %v", err)
	}
	alice, device := message.Address{User: "alice", Host: "a.example"}, message.NewPublicID()
	c := call{
		method: "REGISTER", uri: "sip:a.example", to: "sip:alice@a.example", id: device, from: alice, secret: "correct horse",
		headers: fmt.Sprintf("Contact: <sip:bob@%s;transport=tcp>;+sip.instance=%q\r\n", conn.LocalAddr(), device),
	}
	challenge, err := ask(conn, c.write(conn, 1, ""))
	if err == nil {
		var answer string
		answer, err = ask(conn, c.write(conn, 2, c.credentials(nonceIn.FindStringSubmatch(challenge)[1], 1)))
		challenge = answer
	}
	if err != nil || status(challenge) != "200 OK" {
		t.Fatalf("the device can't register: %v\n%s", err, challenge)
	}
	binding := &plugin.Binding{Account: "account-of-alice", AOR: alice, Device: device}
	s, _ := n.door.streams.of(binding, time.Now())
	binding.Contact, binding.Flow = s.contact, s.flow.String()
	var tasks sync.WaitGroup
	tasks.Go(func() { listenOn(conn, hear, &tasks) })
	t.Cleanup(func() {
		conn.Close()
		tasks.Wait()
	})
	return plugin.Route{Transport: "sip", Binding: binding}
}

// listenOn hears what comes on a connection, where nothing is repeated.
func listenOn(conn *packets, hear func(plugintest.Heard) plugintest.Reply, tasks *sync.WaitGroup) {
	for {
		request, err := conn.next()
		if err != nil {
			return
		}
		tasks.Go(func() {
			if line := lineFor(hear(heardIn(request))); line != "" {
				head, _, _ := strings.Cut(request, "\r\n\r\n")
				_, _ = conn.Write([]byte(answer(head, line))) // at the end the door is gone
			}
		})
	}
}

// listenFor hears each transaction once, retransmitted or not.
func listenFor(conn *net.UDPConn, hear func(plugintest.Heard) plugintest.Reply, tasks *sync.WaitGroup) {
	buffer := make([]byte, wire.MaxMessage)
	known := map[string]bool{}
	for {
		length, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		request := string(buffer[:length])
		if via := fieldOf(request, "Via"); !known[via] {
			known[via] = true
			tasks.Go(func() {
				if line := lineFor(hear(heardIn(request))); line != "" {
					head, _, _ := strings.Cut(request, "\r\n\r\n")
					_, _ = conn.WriteToUDPAddrPort([]byte(answer(head, line)), from) // at the end the door is gone
				}
			})
		}
	}
}

func lineFor(r plugintest.Reply) string {
	switch r {
	case plugintest.Taken:
		return "200 OK"
	case plugintest.Refused:
		return "603 Decline"
	case plugintest.Later:
		return "480 Temporarily Unavailable"
	case plugintest.Elsewhere:
		return "503 Service Unavailable"
	}
	return ""
}

func heardIn(request string) plugintest.Heard {
	_, body, _ := strings.Cut(request, "\r\n\r\n")
	return plugintest.Heard{
		Reference:   fieldOf(request, "Call-ID") + " " + fieldOf(request, "CSeq") + " " + tagOf(fieldOf(request, "From")),
		From:        partyIn(fieldOf(request, "From")),
		To:          partyIn(fieldOf(request, "To")),
		ContentType: fieldOf(request, "Content-Type"),
		Body:        []byte(body),
		Headers:     fieldsOf(request),
	}
}

// fieldsOf takes any line end for one.
func fieldsOf(packet string) []message.Header {
	head, _, _ := strings.Cut(packet, "\r\n\r\n")
	_, head, _ = strings.Cut(head, "\r\n")
	var fields []message.Header
	for line := range strings.FieldsFuncSeq(head, func(r rune) bool { return r == '\r' || r == '\n' }) {
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, message.Header{Name: name, Value: strings.TrimSpace(value)})
	}
	return fields
}

func fieldOf(packet, name string) string {
	for _, h := range fieldsOf(packet) {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// afterDisplayName returns what follows a display name in From or To.
func afterDisplayName(party string) string {
	rest, quoted := strings.CutPrefix(party, `"`)
	for i := 0; quoted && i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			return rest[i+1:]
		}
	}
	return party
}

func partyIn(party string) message.Address {
	_, uri, _ := strings.Cut(afterDisplayName(party), "<")
	uri, _, _ = strings.Cut(uri, ">")
	a, _ := message.ParseAddress(uri)
	return a
}

func tagOf(party string) string {
	_, tag, _ := strings.Cut(afterDisplayName(party), ";tag=")
	return tag
}
