package sip

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// poisons are what somebody could write into a value so that it becomes more
// than one.
var poisons = []string{
	"\r\nEvil: yes", "\nEvil: yes", "\rEvil: yes", "\r\n\r\nevil", "\r\n Evil: folded", "\x00", "\x0b", "\x7f", "\u0085Evil: yes", "\u2028Evil: yes",
	"%0d%0aEvil:%20yes", `"Evil: yes`, `\`, `" <sip:evil@evil.example>;x="`, ">;tag=evil", "<sip:evil@evil.example>", ", <sip:evil@evil.example>", ";evil", "?Evil=yes", "@evil.example", " SIP/2.0",
}

// outgoing are the values of a message, and of where it goes, that come to the
// wire: from another door, a policy, a client or the storage.
var outgoing = []struct {
	name   string
	poison func(m *message.Message, r *plugin.Route, with string)
}{
	{"display name", func(m *message.Message, _ *plugin.Route, with string) { m.DisplayName = "Ann" + with }},
	{"sender's user", func(m *message.Message, _ *plugin.Route, with string) { m.From.User += with }},
	{"sender's domain", func(m *message.Message, _ *plugin.Route, with string) { m.From.Host += with }},
	{"sender's number", func(m *message.Message, _ *plugin.Route, with string) {
		m.From = message.Address{User: "+15551234" + with}
	}},
	{"recipient's user", func(m *message.Message, _ *plugin.Route, with string) { m.Recipient.User += with }},
	{"recipient's domain", func(m *message.Message, _ *plugin.Route, with string) { m.Recipient.Host += with }},
	{"content type", func(m *message.Message, _ *plugin.Route, with string) { m.ContentType += with }},
	{"charset", func(m *message.Message, _ *plugin.Route, with string) { m.ContentType += ";charset=utf-8" + with }},
	{"quoted parameter", func(m *message.Message, _ *plugin.Route, with string) {
		m.ContentType += `;boundary="x` + with + `"`
	}},
	{"header field", func(m *message.Message, _ *plugin.Route, with string) { m.Headers[0].Value += with }},
	{"name of a header field", func(m *message.Message, _ *plugin.Route, with string) { m.Headers[0].Name += with }},
	{"reference", func(_ *message.Message, r *plugin.Route, with string) { r.Reference += with }},
	{"contact's user", func(_ *message.Message, r *plugin.Route, with string) {
		r.Binding.Contact = "sip:1002" + with + "@10.0.0.1"
	}},
	{"contact", func(_ *message.Message, r *plugin.Route, with string) { r.Binding.Contact += with }},
	{"push parameter", func(_ *message.Message, r *plugin.Route, with string) {
		r.Binding.Contact = "sip:1002@10.0.0.1;pn-provider=apns;pn-prid=00fc13" + with + ";pn-param=x.y"
	}},
	{"path", func(_ *message.Message, r *plugin.Route, with string) {
		r.Binding.Flow += " <sip:edge.example;lr" + with + ">"
	}},
}

// TestNothingIsInjected: whatever stands in a value, what comes to a device has
// the fields that it should have and says the same of who is who, or nothing
// comes at all.
func TestNothingIsInjected(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	device := newClient(t, d)
	packets := make(chan string)
	go func() {
		defer close(packets)
		for {
			packet, err := device.conn.next()
			if err != nil {
				return
			}
			packets <- packet
		}
	}()
	sent := 0
	for _, value := range outgoing {
		for _, with := range append([]string{""}, poisons...) {
			m, r := testMessage(), route(d, device)
			value.poison(m, &r, with)
			done := d.sendLater(t, m, r)
			select {
			case got := <-done:
				if with == "" || !isFailure(got.err, message.Unbuildable, false) && !isFailure(got.err, message.Unavailable, true) {
					t.Errorf("%s with %q: %v", value.name, with, got.err)
				}
			case packet := <-packets:
				sent++
				if err := sameMessage(packet, m); err != nil {
					t.Errorf("%s with %q: %v in\n%q", value.name, with, err, packet)
				}
				device.send(answer(packet, "200 OK"))
				<-done
			case <-time.After(10 * time.Second):
				t.Fatalf("%s with %q: nothing happens", value.name, with)
			}
		}
	}
	t.Logf("%d of %d came to the device", sent, len(outgoing)*(len(poisons)+1))
	device.conn.Close()
	for range packets {
	}
}

// sameMessage compares a request with what was to be said. It reads lines as a
// careless device would.
func sameMessage(packet string, m *message.Message) error {
	var names []string
	for _, h := range fieldsOf(packet) {
		names = append(names, h.Name)
	}
	want := []string{"Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", m.Headers[0].Name, "Date", "Content-Type", "Content-Length"}
	if slices.Contains(names, "Route") {
		want = slices.Insert(want, 2, "Route")
	}
	if !slices.Equal(names, want) {
		return fmt.Errorf("fields %q", names)
	}
	request, _, refusal := wire.Parse([]byte(packet), wire.MaxMessage)
	if refusal != nil {
		return refusal
	}
	if string(request.Body) != "hello" || request.Method != "MESSAGE" || request.ToTag != "" || request.From.Display != m.DisplayName || request.FromTag != request.CallID {
		return fmt.Errorf("From %+v, To %+v, body %q", request.From, request.To, request.Body)
	}
	for uri, address := range map[string]message.Address{request.From.URI: m.From, request.To.URI: m.Recipient} {
		u, err := wire.ParseURI(uri)
		if err != nil {
			return err
		}
		user, err := url.PathUnescape(u.User)
		if err != nil || user != address.User || address.Host != "" && !strings.EqualFold(u.Host, address.Host) {
			return fmt.Errorf("%s is %q: %w", uri, user, err)
		}
	}
	return nil
}

// TestNothingIsInjectedIntoAnswers: nor by what a policy accepts, what is bound,
// or what the request itself says.
func TestNothingIsInjectedIntoAnswers(t *testing.T) {
	for _, with := range poisons {
		g := &gate{refused: &message.Failure{Reason: message.UnsupportedType, Accept: []string{"text/plain" + with}}}
		c := newClient(t, openDoor(t, g, nil))
		c.login()
		sameAnswer(t, "Accept with "+with, c.message("", "x"), "Accept")

		g.refuse(nil)
		g.bind(plugin.Binding{Contact: "sip:a@b" + with, Device: "urn:uuid:1" + with, RegID: "1" + with, Q: 1000, Expires: time.Now().Add(time.Hour)})
		sameAnswer(t, "Contact with "+with, c.register(""), "Contact", "Date")

		for _, header := range []string{"Require: evil" + with + "\r\n", "User-Agent: baresip v0." + with + "\r\n", "Call-Info: <x" + with + ">\r\n"} {
			if strings.ContainsAny(with, "\r\n") {
				continue // those are header fields of the request then
			}
			c.send(c.request("OPTIONS", bob, header, ""))
			if strings.ContainsFunc(with, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				want(t, c.receive(), "400 Control Character In Header")
				continue
			}
			sameAnswer(t, header, c.receive(), "Allow", "Accept", "Accept-Encoding", "Supported", "Unsupported")
		}
	}
}

// sameAnswer wants no other fields in an answer than those that each has, and
// some more.
func sameAnswer(t *testing.T, what, answer string, also ...string) {
	t.Helper()
	usual := []string{"Via", "From", "To", "Call-ID", "CSeq", "Content-Length"}
	for _, h := range fieldsOf(answer) {
		if !slices.Contains(usual, h.Name) && !slices.Contains(also, h.Name) {
			t.Errorf("%q: a field %q in\n%q", what, h.Name, answer)
		}
	}
	if _, response, refusal := wire.Parse([]byte(answer), wire.MaxMessage); refusal != nil || len(response.Body) > 0 {
		t.Errorf("%q: %v in\n%q", what, refusal, answer)
	}
}

// TestRequestsAreNotAmbiguous: what two readers could read differently is
// refused over UDP and TCP, whoever asks; what comes behind it on the same
// connection isn't read if nobody knows where it begins.
func TestRequestsAreNotAmbiguous(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		_, d, _ := openTown(t, nil)
		for _, test := range []struct{ old, new, status string }{
			{"Call-ID: call", "Call-ID: call\r\nCall-ID: call", "400 More Than One Call-ID"},
			{"Call-ID: call", "Call-ID: call\r\ni: other", "400 More Than One Call-ID"},
			{"Max-Forwards: 70", "Max-Forwards: 70\r\nFrom: <sip:1002@sip.example.com>;tag=g", "400 More Than One From"},
			{"Max-Forwards: 70", "Max-Forwards: 70\r\nt: <sip:1002@sip.example.com>", "400 More Than One To"},
			{"Max-Forwards: 70", "Max-Forwards: 70\r\nMax-Forwards: 1", "400 More Than One Max-Forwards"},
			{"Max-Forwards: 70", "Max-Forwards: 70\r\nExpires: 1\r\nExpires: 2", "400 More Than One Expires"},
			{"Max-Forwards: 70", "c: text/plain\r\nContent-Type: text/html", "400 More Than One Content-Type"},
			{"Content-Length: 1", "Content-Length: 1\r\nl: 2", "400 More Than One Content-Length"},
			{"Content-Length: 1", "Content-Length: 1\r\nContent-Length: 1", "400 More Than One Content-Length"},
			{"Max-Forwards: 70", "Subject: a\rb", "400 Control Character In Header"},
			{"Max-Forwards: 70", "Subject: a\nb", "400 Control Character In Header"},
			{"Max-Forwards: 70", "Subject: a\nRoute: <sip:evil.example;lr>", "400 Control Character In Header"},
			{"Max-Forwards: 70", "Subject: a\x00b", "400 Control Character In Header"},
			{"Max-Forwards: 70", "Subject : a\r\nCall-ID : b", "400 More Than One Call-ID"},
		} {
			c := at(t, d, network, "127.1.0.1", "1001")
			request := c.request("MESSAGE", bob, "", "x")
			if !strings.Contains(request, test.old) {
				t.Fatalf("nothing to change: %q", test.old)
			}
			c.send(strings.Replace(request, test.old, test.new, 1))
			_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := c.conn.next()
			if err != nil || status(got) != test.status {
				t.Errorf("%s, %q: %s, %v", network, test.new, status(got), err)
			}
			c.conn.Close()
		}
		c := at(t, d, network, "127.1.0.1", "1001")
		c.send(strings.Replace(c.request("MESSAGE", bob, "", "x"), "1 MESSAGE", "1 REGISTER", 1))
		want(t, c.receive(), "400 CSeq Method Mismatch")
	}
	smuggle(t)
}

// smuggle sends a request in the body of another one that has two lengths.
func smuggle(t *testing.T) {
	_, d, _ := openTown(t, nil)
	c := at(t, d, "tcp", "127.1.0.1", "1001")
	hidden := c.request("OPTIONS", bob, "", "")
	outer := c.request("MESSAGE", bob, "", hidden)
	c.send(strings.Replace(outer, "Content-Length", "Content-Length: 0\r\nContent-Length", 1))
	want(t, c.receive(), "400 More Than One Content-Length")
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := c.conn.next()
	if timeout, ok := err.(net.Error); err == nil || ok && timeout.Timeout() {
		t.Errorf("the connection goes on: %q, %v", got, err)
	}
}
