package sip

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// authority signs the certificates of doors in tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// testAuthority is whom all clients of tests trust.
var testAuthority = sync.OnceValue(func() authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return authority{certificate, key}
})

// trust is a client's.
func (a authority) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{RootCAs: pool, ServerName: "sip.example.com"}
}

// issue writes a door's certificate over that in a directory.
func (a authority) issue(t testing.TB, dir string, serial int64) TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"sip.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := TLS{Certificate: filepath.Join(dir, "certificate.pem"), Key: filepath.Join(dir, "key.pem"), Clients: clientsNone}
	for path, block := range map[string]*pem.Block{files.Certificate: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// onAll has a door listen on all networks of a host.
func onAll(t testing.TB, host string) func(*Config) {
	return func(c *Config) {
		c.Listen = nil
		for _, network := range []string{"udp", "tcp", "tls", "ws", "wss"} {
			c.Listen = append(c.Listen, network+"://"+host+":0")
		}
		c.TLS = testAuthority().issue(t, t.TempDir(), 2)
	}
}

// dialStream opens a connection that isn't plain TCP.
func dialStream(network, address string) (net.Conn, error) {
	switch network {
	case "tls":
		return tls.Dial("tcp", address, testAuthority().trust())
	case "ws", "wss":
		return dialSocket(network, address)
	default:
		return net.Dial(network, address)
	}
}

// socket is a WebSocket as a stream, over the connection that it embeds.
type socket struct {
	net.Conn
	web     *websocket.Conn
	message io.Reader // that isn't read to its end; nil: none
}

func (s *socket) Read(p []byte) (int, error) {
	if s.message == nil {
		_, message, err := s.web.Reader(context.Background())
		if websocket.CloseStatus(err) == websocket.StatusGoingAway {
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		s.message = message
	}
	n, err := s.message.Read(p)
	if err == io.EOF {
		s.message, err = nil, nil
	}
	if n == 0 && err == nil {
		return s.Read(p)
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	kind := websocket.MessageText
	if !utf8.Valid(p) {
		kind = websocket.MessageBinary
	}
	return len(p), s.web.Write(context.Background(), kind, p)
}

func (s *socket) Close() error { return s.web.Close(websocket.StatusNormalClosure, "") }

func dialSocket(network, address string) (net.Conn, error) {
	s := &socket{}
	transport := &http.Transport{
		TLSClientConfig: testAuthority().trust(),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			s.Conn = conn
			return conn, err
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, network+"://"+address+"/", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"sip"},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(-1)
	s.web = conn
	return s, nil
}

// serialOf is that of the certificate that a door shows.
func serialOf(t *testing.T, d *Door, network string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addressOf(d, network).String(), testAuthority().trust())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// warnings are lines of a log.
type warnings chan string

func (w warnings) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}

// TestCertificatesAreExchanged: whoever connects sees the new certificate, and
// who is connected stays so. Files that are broken change nothing.
func TestCertificatesAreExchanged(t *testing.T) {
	dir := t.TempDir()
	config := defaults
	config.Listen, config.TLS = []string{"tls://127.0.0.1:0", "wss://127.0.0.1:0"}, testAuthority().issue(t, dir, 2)
	warned := make(warnings, 10)
	d := serve(t, &gate{}, plugin.Env{Instance: "sip", Log: slog.New(slog.NewTextHandler(warned, &slog.HandlerOptions{Level: slog.LevelWarn}))}, config)
	c := newClientOver(t, d, "tls")
	c.login()
	if got := serialOf(t, d, "wss"); got != 2 {
		t.Errorf("certificate %d", got)
	}
	testAuthority().issue(t, dir, 3)
	waitFor(t, func() bool { return serialOf(t, d, "tls") == 3 })
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return serialOf(t, d, "tls") == 3 && len(warned) > 0 })
	if got := <-warned; !strings.Contains(got, "those from before stay") {
		t.Error(got)
	}
	for _, network := range []string{"tls", "wss"} {
		if got := serialOf(t, d, network); got != 3 {
			t.Errorf("%s: certificate %d", network, got)
		}
	}
	want(t, c.message("", "hello"), "202 Accepted")
}

func TestClientsNeedCertificates(t *testing.T) {
	d := openDoor(t, &gate{}, func(c *Config) {
		c.Listen, c.TLS = []string{"tls://127.0.0.1:0"}, testAuthority().issue(t, t.TempDir(), 2)
		c.TLS.ClientCA, c.TLS.Clients = c.TLS.Certificate, clientsRequired
	})
	conn, err := dialStream("tls", d.Addrs()[0].String())
	if err == nil { // a client of TLS 1.3 hears only now
		_, err = bufio.NewReader(conn).ReadByte()
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

// TestSIPS: what asks for TLS on every hop comes and goes over TLS only.
func TestSIPS(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, onAll(t, "127.0.0.1"))
	const secure = "sips:1002@sip.example.com"
	for network, ok := range map[string]bool{"udp": false, "tcp": false, "ws": false, "tls": true, "wss": true} {
		c := newClientOver(t, d, network)
		c.login()
		c.send(c.request("MESSAGE", secure, c.credentials("MESSAGE", secure), "hello"))
		got := c.receive()
		contact := "Contact: <sips:1001@192.0.2.9;transport=tcp>\r\n"
		if !ok {
			want(t, got, "416 Unsupported URI Scheme")
			want(t, c.register(contact), "400 SIPS Contact Needs TLS")
			continue
		}
		want(t, got, "202 Accepted")
		want(t, c.register(contact), "200 OK", "Contact: <sips:1001@192.0.2.9;transport=tcp>;")
		sent := d.sendLater(t, testMessage(), plugin.Route{Reference: "ref", Binding: &g.bound()[0]})
		request := c.receive()
		if !strings.HasPrefix(request, "MESSAGE sips:1001@192.0.2.9;transport=tcp SIP/2.0\r\n") {
			t.Errorf("%s: %s", network, request)
		}
		c.send(answer(request, "200 OK"))
		if r := <-sent; r.err != nil {
			t.Error(r.err)
		}
	}
}

func TestContractOverTLS(t *testing.T) { contractOver(t, "tls") }

func TestContractOverSecureWebSockets(t *testing.T) { contractOver(t, "wss") }

func contractOver(t *testing.T, network string) {
	files := testAuthority().issue(t, t.TempDir(), 2)
	plugintest.Transport(t, func(plugintest.T) plugintest.TransportHarness {
		n := &neighbourhood{network: network, listen: network + "://127.0.0.1:0", tls: files}
		return plugintest.TransportHarness{Open: n.open, Say: n.say, Register: n.register, Route: n.routeOverStream}
	})
}
