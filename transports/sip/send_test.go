package sip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func testMessage() *message.Message {
	return &message.Message{
		Received: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), From: account1001.Identities[0], DisplayName: `Ann "A" \ ä`,
		Recipient: message.Address{User: "1002", Host: "sip.example.com"}, ContentType: "text/plain", Body: []byte("hello"), Hops: 69,
		Headers: []message.Header{{Name: "Subject", Value: "s"}},
	}
}

// route leads to a client, as if that had registered.
func route(d *Door, c *client) plugin.Route {
	flow := fmt.Sprintf("udp;%s;%s", d.Addrs()[0], c.addr())
	return plugin.Route{Transport: "sip", Reference: "Ref_1.x-" + fmt.Sprint(c.addr().Port()), Binding: &plugin.Binding{Contact: "sip:1002@10.0.0.1:5099;x=y?Subject=z", Flow: flow}}
}

// answer makes the response to a request of the door's.
func answer(request, line string) string {
	var b strings.Builder
	b.WriteString("SIP/2.0 " + line + "\r\n")
	head, _, _ := strings.Cut(request, "\r\n\r\n")
	for _, l := range strings.Split(head, "\r\n") {
		name, _, _ := strings.Cut(l, ":")
		switch name {
		case "Via", "From", "To", "Call-ID", "CSeq":
			b.WriteString(l + "\r\n")
		}
	}
	return b.String() + "Content-Length: 0\r\n\r\n"
}

type result struct {
	plugin.Receipt
	err error
}

func (d *Door) sendLater(t *testing.T, m *message.Message, r plugin.Route) <-chan result {
	done := make(chan result, 1)
	go func() {
		receipt, err := d.Send(t.Context(), m, r)
		done <- result{receipt, err}
	}()
	return done
}

func TestSend(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	one, two := newClient(t, d), newClient(t, d)
	first, second := d.sendLater(t, testMessage(), route(d, one)), d.sendLater(t, testMessage(), route(d, two))
	got := one.receive()
	reference := route(d, one).Reference
	for _, line := range []string{
		"MESSAGE sip:1002@10.0.0.1:5099;x=y SIP/2.0", "Max-Forwards: 69",
		`From: "Ann \"A\" \\ ä" <sip:1001@sip.example.com>;tag=` + reference, "To: <sip:1002@sip.example.com>",
		"Call-ID: " + reference, "CSeq: 1 MESSAGE", "Date: Fri, 02 Jan 2026 03:04:05 GMT", "Subject: s", "Content-Type: text/plain", "Content-Length: 5",
	} {
		if !strings.Contains(got, line+"\r\n") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	if !strings.HasSuffix(got, "\r\n\r\nhello") {
		t.Error(got)
	}
	two.send(answer(two.receive(), "603 Decline"))
	if r := <-second; !isFailure(r.err, message.Declined, false) {
		t.Errorf("%+v", r)
	}
	one.send(answer(got, "200 OK"))
	if r := <-first; r.err != nil || !r.Final {
		t.Errorf("%+v", r)
	}
	// A repeat is recognisable, and a transaction of its own.
	again := d.sendLater(t, testMessage(), route(d, one))
	repeat := one.receive()
	one.send(answer(repeat, "202 Accepted"))
	if r := <-again; r.err != nil || repeat == got || withoutVia(repeat) != withoutVia(got) {
		t.Errorf("%+v\n%s\n%s", r, got, repeat)
	}
}

func withoutVia(s string) string {
	before, after, _ := strings.Cut(s, "Via: ")
	_, after, _ = strings.Cut(after, "\r\n")
	return before + after
}

func isFailure(err error, reason message.Reason, temporary bool) bool {
	f, ok := errors.AsType[*message.Failure](err)
	return ok && f.Reason == reason && f.Temporary == temporary
}

func TestSendReadsRefusals(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	rows := answers
	rows = append(rows[:len(rows):len(rows)], struct {
		status    int
		reason    message.Reason
		temporary bool
	}{499, message.Undelivered, false})
	for _, row := range rows {
		sent := d.sendLater(t, testMessage(), route(d, c))
		c.send(strings.Replace(answer(c.receive(), fmt.Sprintf("%d No", row.status)), "Content-Length", "Retry-After: 7 (busy);duration=3\r\nAccept: text/html, a/b\r\nContent-Length", 1))
		r := <-sent
		f := message.AsFailure(r.err)
		if !isFailure(r.err, row.reason, row.temporary) || f.RetryAfter != 7*time.Second || (fmt.Sprint(f.Accept) == "[text/html a/b]") != (row.status == 415) {
			t.Errorf("%d: %+v", row.status, f)
		}
	}
	f := failureOfStatus(599)
	if f.Reason != message.Undelivered || !f.Temporary {
		t.Errorf("599: %+v", f)
	}
}

func TestSendFails(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	tests := []struct {
		name      string
		change    func(*message.Message, *plugin.Route)
		reason    message.Reason
		temporary bool
	}{
		{"no binding", func(_ *message.Message, r *plugin.Route) { r.Binding = nil }, message.Unbuildable, false},
		{"another door's flow", func(_ *message.Message, r *plugin.Route) { r.Binding.Flow = "tcp;x" }, message.Unavailable, true},
		{"contact isn't SIP", func(_ *message.Message, r *plugin.Route) { r.Binding.Contact = "tel:1" }, message.Unbuildable, false},
		{"contact breaks the line", func(_ *message.Message, r *plugin.Route) { r.Binding.Contact += "\r\nX: y" }, message.Unbuildable, false},
		{"no reference", func(_ *message.Message, r *plugin.Route) { r.Reference = "" }, message.Unbuildable, false},
		{"reference breaks the line", func(_ *message.Message, r *plugin.Route) { r.Reference = "a\r\nX: y" }, message.Unbuildable, false},
		{"display name breaks the line", func(m *message.Message, _ *plugin.Route) { m.DisplayName = "a\r\nX: y" }, message.Unbuildable, false},
		{"user breaks the line", func(m *message.Message, _ *plugin.Route) { m.From.User = "a\r\nX: y" }, message.Unbuildable, false},
		{"host ends the URI", func(m *message.Message, _ *plugin.Route) { m.From.Host = "h>;tag=x" }, message.Unbuildable, false},
		{"header value breaks the line", func(m *message.Message, _ *plugin.Route) { m.Headers[0].Value = "a\nX: y" }, message.Unbuildable, false},
		{"header name breaks the line", func(m *message.Message, _ *plugin.Route) { m.Headers[0].Name = "a: b\r\nX" }, message.Unbuildable, false},
		{"header of the door", func(m *message.Message, _ *plugin.Route) { m.Headers[0].Name = "content-type" }, message.Unbuildable, false},
		{"header of the wire", func(m *message.Message, _ *plugin.Route) { m.Headers[0].Name = "Via" }, message.Unbuildable, false},
		{"content type breaks the line", func(m *message.Message, _ *plugin.Route) { m.ContentType = "a/b\r\nX: y" }, message.Unbuildable, false},
		{"parameter breaks the line", func(m *message.Message, _ *plugin.Route) { m.ContentType = "a/b;c=d\r\nX: y" }, message.Unbuildable, false},
		{"too large", func(m *message.Message, _ *plugin.Route) { m.Body = make([]byte, 65_000) }, message.TooLarge, false},
	}
	for _, test := range tests {
		m, r := testMessage(), route(d, c)
		test.change(m, &r)
		receipt, err := d.Send(t.Context(), m, r)
		if !isFailure(err, test.reason, test.temporary) || receipt.Final || len(receipt.PeerIDs) > 0 {
			t.Errorf("%s: %+v %v", test.name, receipt, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Send(ctx, testMessage(), route(d, c)); !isFailure(err, message.NoAnswer, true) {
		t.Errorf("cancelled: %v", err)
	}
	shut, err := New(t.Context(), plugin.Env{}, defaults)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shut.Send(t.Context(), testMessage(), route(d, c)); !isFailure(err, message.Unavailable, true) {
		t.Errorf("before Serve: %v", err)
	}
}

func TestSendToANumber(t *testing.T) {
	d := openDoor(t, &gate{}, nil)
	c := newClient(t, d)
	m := testMessage()
	m.From, m.DisplayName = message.Address{User: "+1 555#"}, ""
	expires := time.Since(m.Received) + time.Minute
	m.Expires = &expires
	m.Headers = []message.Header{{Name: "Date", Value: m.Received.Add(time.Second).Format(http.TimeFormat)}}
	sent := d.sendLater(t, m, route(d, c))
	got := c.receive()
	c.send(answer(got, "200 OK"))
	<-sent
	if !strings.Contains(got, "From: <sip:+1%20555%23@sip.example.com>;tag=") || !strings.Contains(got, "\r\nExpires: 60\r\n") || strings.Count(got, "Date:") != 1 {
		t.Error(got)
	}
}

// TestRegisteredThenSent: what a registration says leads back to the client.
func TestRegisteredThenSent(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, nil)
	c := newClient(t, d)
	c.login()
	want(t, c.register("Contact: <sip:1001@10.9.9.9:1>\r\n"), "200 OK")
	r := plugin.Route{Reference: "ref", Binding: &g.bound()[0]}
	sent := d.sendLater(t, testMessage(), r)
	c.send(answer(c.receive(), "200 OK"))
	if got := <-sent; got.err != nil {
		t.Error(got.err)
	}
}

// locals notes from where packets were sent.
type locals struct{ sent chan netip.AddrPort }

func (l locals) Packet(p *plugin.Packet) {
	if p.Sent {
		l.sent <- p.Local
	}
}
func (locals) Step(*plugin.Step) {}
func (locals) Close() error      { return nil }

// TestSendToABindingOfAnotherNode: over UDP a device is reached from our own
// socket, and everything names that; a connection of another node is none of
// ours, and that is known at once.
func TestSendToABindingOfAnotherNode(t *testing.T) {
	watch, observers := locals{make(chan netip.AddrPort, 1)}, &plugin.Observers{}
	observers.Use([]plugin.Observer{watch})
	registrar := &gate{}
	other := openDoor(t, registrar, nil)
	config := defaults
	config.Listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	d := serve(t, &gate{}, plugin.Env{Instance: "sip", Observers: observers}, config)
	own := addressOf(d, "udp")

	c := newClient(t, d)
	r := route(other, c)
	sent := d.sendLater(t, testMessage(), r)
	got := c.receive()
	if !strings.Contains(got, "\r\nVia: SIP/2.0/UDP "+own.String()+";") {
		t.Errorf("not from %s:\n%s", own, got)
	}
	if local := <-watch.sent; local != own {
		t.Errorf("observers are told that it was sent from %s, not %s", local, own)
	}
	c.send(answer(got, "200 OK"))
	if r := <-sent; r.err != nil {
		t.Error(r.err)
	}

	stream := newClientOver(t, other, "tcp")
	stream.login()
	want(t, stream.register("Contact: <sip:1001@192.0.2.1:5070;transport=tcp>\r\n"), "200 OK")
	binding := registrar.bound()[0]
	ctx, cancel := context.WithTimeout(t.Context(), wire.T1) // before anything could be repeated
	defer cancel()
	r.Binding = &binding
	if _, err := d.Send(ctx, testMessage(), r); !isFailure(err, message.Unavailable, true) || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}
