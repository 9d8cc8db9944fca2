package standard_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/plugins/webhook"
	"github.com/imgate/imgate/transports/sip"
)

// app is a SIP client over TCP whose contact says how it is woken (RFC 8599).
type app struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	got  []string // texts
}

func dialApp(t *testing.T, address string) *app {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testWait)); err != nil {
		t.Fatal(err)
	}
	return &app{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (a *app) write(lines ...string) {
	a.t.Helper()
	if _, err := io.WriteString(a.conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		a.t.Fatal(err)
	}
}

// read returns the next message: its first line, its header and its body.
func (a *app) read() (string, textproto.MIMEHeader, string) {
	a.t.Helper()
	reader := textproto.NewReader(a.in)
	line, err := reader.ReadLine()
	for err == nil && line == "" { // keep-alives
		line, err = reader.ReadLine()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	header, err := reader.ReadMIMEHeader()
	if err != nil {
		a.t.Fatal(err)
	}
	n, _ := strconv.Atoi(header.Get("Content-Length"))
	body := make([]byte, n)
	if _, err := io.ReadFull(a.in, body); err != nil {
		a.t.Fatal(err)
	}
	return line, header, string(body)
}

// take takes a message.
func (a *app) take(line string, header textproto.MIMEHeader, body string) {
	a.t.Helper()
	if !strings.HasPrefix(line, "MESSAGE ") || body != "hello" {
		a.t.Fatalf("got %s %q", line, body)
	}
	a.got = append(a.got, body)
	a.write("SIP/2.0 200 OK", "Via: "+header.Get("Via"), "From: "+header.Get("From"), "To: "+header.Get("To")+";tag=2",
		"Call-ID: "+header.Get("Call-ID"), "CSeq: "+header.Get("CSeq"), "Content-Length: 0")
}

var nonceOf = regexp.MustCompile(`realm="([^"]*)".*nonce="([^"]*)"`)

// register registers bob, whose password nobody checks.
func (a *app) register() {
	a.t.Helper()
	request := func(cseq int, more ...string) (string, textproto.MIMEHeader) {
		a.write(append([]string{
			"REGISTER sip:sip.example.com SIP/2.0",
			fmt.Sprintf("Via: SIP/2.0/TCP %s;branch=z9hG4bK%s%d", a.conn.LocalAddr(), strings.ReplaceAll(a.conn.LocalAddr().String(), ":", "x"), cseq),
			"Max-Forwards: 70", "From: <sip:bob@sip.example.com>;tag=1", "To: <sip:bob@sip.example.com>",
			"Call-ID: " + a.conn.LocalAddr().String(), fmt.Sprintf("CSeq: %d REGISTER", cseq),
			fmt.Sprintf(`Contact: <sip:bob@%s;transport=tcp;pn-provider=fcm;pn-param=project;pn-prid=token>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000000000001>";reg-id=1`, a.conn.LocalAddr()),
			"Expires: 3600", "Supported: outbound, path", "Content-Length: 0",
		}, more...)...)
		for {
			line, header, body := a.read()
			if strings.HasPrefix(line, "SIP/2.0 ") {
				return line, header
			}
			a.take(line, header, body) // it waited, and may come before the answer
		}
	}
	_, header := request(1)
	found := nonceOf.FindStringSubmatch(header.Get("WWW-Authenticate"))
	if found == nil {
		a.t.Fatalf("no challenge: %v", header)
	}
	line, header := request(2, fmt.Sprintf(
		`Authorization: Digest username="bob", realm="%s", nonce="%s", uri="sip:sip.example.com", response="%032d", algorithm=MD5, cnonce="c", qop=auth, nc=00000001`, found[1], found[2], 0))
	if !strings.Contains(line, " 200 ") {
		a.t.Fatalf("REGISTER: %s %v", line, header)
	}
}

// TestAppOverTCPIsWoken: the connection of an app closes, a message comes, the push
// server is asked once, and the message arrives when the app is back.
func TestAppOverTCPIsWoken(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
	}))
	t.Cleanup(server.Close)
	g := open(t, func(c *engine.Config) {
		hook := webhook.Plugin.NewConfig().(*webhook.Config)
		hook.URL = server.URL
		c.Push = engine.Instance{Name: "push", Plugin: webhook.Plugin, Settings: hook}
		listen := c.Transports[0].Settings.(*sip.Config)
		listen.Listen = append(listen.Listen, strings.Replace(listen.Listen[0], "udp", "tcp", 1))
		listen.PushProviders = []string{"fcm"}
	})
	ann, _ := g.phone(t, "ann")
	first := dialApp(t, g.sip)
	first.register()
	first.conn.Close()
	for i := range 3 { // the first may come before the end of the connection
		result := say(t, ann, subscribers[1].Identities[0], "text/plain")
		if result.Code != 202 {
			t.Fatalf("message %d: %+v", i, result)
		}
	}
	want := `"device":"<urn:uuid:00000000-0000-1000-8000-000000000001>","provider":"fcm","param":"project","prid":"token"`
	if got := received(t, asked); !strings.Contains(got, want) {
		t.Errorf("asked %s", got)
	}
	second := dialApp(t, g.sip)
	second.register()
	for len(second.got) < 3 {
		second.take(second.read())
	}
	if len(asked) > 0 {
		t.Errorf("asked again: %s", <-asked)
	}
}
