package sip

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// issuer signs certificates, and is trusted by the doors and clients of a test.
type issuer struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t}
	i.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	i.key, i.pem = i.sign(i.cert)
	block, _ := pem.Decode(i.pem)
	var err error
	if i.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) sign(c *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := i.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, i.cert, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// pair is a certificate for a name, and its key, as PEM.
func (i *issuer) pair(name string) (cert, key []byte) {
	i.t.Helper()
	private, cert := i.sign(&x509.Certificate{DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		i.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// config opens all networks, with a certificate.
func (i *issuer) config(c *Config) {
	i.t.Helper()
	cert, key := i.pair("sip.example.com")
	dir := i.t.TempDir()
	for name, data := range map[string][]byte{"cert": cert, "key": key, "ca": i.pem} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	c.Listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0", "wss://127.0.0.1:0"}
	c.TLS = TLS{Certificate: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca"), Clients: clientsOptional}
}

// client is what a client's TLS works with; name is that of its certificate,
// empty: it has none.
func (i *issuer) client(name string) *tls.Config {
	i.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "sip.example.com"}
	config.RootCAs.AddCert(i.cert)
	if name == "" {
		return config
	}
	pair, err := tls.X509KeyPair(i.pair(name))
	if err != nil {
		i.t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config
}

// promptly is five times what a client may have to wait for the door, whatever
// else goes on: the machine may be busy.
const promptly = 5 * time.Second

// dial connects over any network.
func (i *issuer) dial(d *Door, network, address, username string, config *tls.Config) *client {
	i.t.Helper()
	if network == "udp" || network == "tcp" {
		return at(i.t, d, network, address, username)
	}
	ctx, cancel := context.WithTimeout(i.t.Context(), promptly)
	defer cancel()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	server := addressOf(d, network).String()
	var conn net.Conn
	var err error
	if network == "tls" {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", server)
	} else {
		conn, err = dialWebSocket(ctx, i.t.Context(), dialer, network+"://"+server+"/", config)
	}
	if err != nil {
		i.t.Fatalf("%s: %v", network, err)
	}
	i.t.Cleanup(func() { conn.Close() })
	p := &packets{Conn: conn, network: network, reader: bufio.NewReader(conn)}
	return &client{t: i.t, conn: p, algorithm: "MD5", qop: "auth", username: username}
}

func (i *issuer) send(c *client, headers string) string {
	c.send(c.request("MESSAGE", bob, headers, "x"))
	return c.receive()
}

var allNetworks = []string{"udp", "tcp", "tls", "ws", "wss"}

// TestPeersByCertificate: who shows the certificate is a peer on that connection,
// whatever its address; nobody else is, from the same address or otherwise.
func TestPeersByCertificate(t *testing.T) {
	i := newIssuer(t)
	_, d, _ := openTown(t, func(c *Config) {
		i.config(c)
		c.Peers = []Peer{{Name: "core", Certificates: []string{"core.example.com"}, Account: "acc-core"}}
	})
	const asserted = "P-Asserted-Identity: <sip:ann@elsewhere.example>\r\n"
	for _, network := range []string{"tls", "wss"} {
		want(t, i.send(i.dial(d, network, "127.1.0.1", "", i.client("core.example.com")), asserted), "202 Accepted")
		want(t, i.send(i.dial(d, network, "127.1.0.1", "", i.client("other.example.com")), asserted), "401 Unauthorized")
		want(t, i.send(i.dial(d, network, "127.1.0.1", "", i.client("")), asserted), "401 Unauthorized")
	}
	for _, network := range []string{"udp", "tcp", "ws"} {
		want(t, i.send(i.dial(d, network, "127.1.0.1", "", nil), asserted), "401 Unauthorized")
	}
}

// TestBruteForceOverEverything: a lockout is of a source, whatever network it
// comes over, and not of a connection that has proved the account.
func TestBruteForceOverEverything(t *testing.T) {
	i := newIssuer(t)
	for _, network := range allNetworks {
		_, d, _ := openTown(t, i.config)
		proved := i.dial(d, network, "127.1.0.1", "1001", i.client(""))
		proved.login()
		proved.isServed("the subscriber before")
		var others []*client
		for _, other := range allNetworks {
			c := i.dial(d, other, "127.1.0.1", "1001", i.client(""))
			c.login()
			others = append(others, c)
		}
		thief := i.dial(d, network, "127.1.0.1", "1001", i.client(""))
		thief.login()
		for range freeTries + 1 {
			want(t, thief.guess("wrong"), "401 Unauthorized")
		}
		for _, c := range others {
			want(t, c.guess(password), "500 Try Again Later")
		}
		proved.isServed("the subscriber on what he has proved, over " + network)
	}
}

// TestHalfOpen: those who begin a handshake and don't end it keep nobody waiting.
func TestHalfOpen(t *testing.T) {
	i := newIssuer(t)
	_, d, _ := openTown(t, i.config)
	before := heap()
	half := []string{
		"", "\x16", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET", "GET / HTTP/1.1\r\nHost: sip.example.com\r\n",
		"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nX: " + strings.Repeat("x", 3000),
		"REGISTER sip:sip.example.com SIP/2.0\r\nVia: ",
	}
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for n := range 1200 {
		network := allNetworks[1+n%4]
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 6, 0, byte(1+n/200))}, Timeout: 5 * time.Second}
		conn, err := dialer.Dial("tcp", addressOf(d, network).String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		_, _ = conn.Write([]byte(half[n%len(half)])) // some are refused at once
		if n%100 == 0 {
			good := i.dial(d, allNetworks[n/100%5], "127.1.0.1", "1001", i.client(""))
			good.login()
			good.isServed(fmt.Sprintf("a client over %s between %d half-open connections", good.conn.network, n))
		}
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d half-open connections hold %d KiB", len(open), grown>>10)
	}
}

// TestSlowReaders: those who ask and don't read what they are told hold little
// memory, and keep nobody waiting.
func TestSlowReaders(t *testing.T) {
	i := newIssuer(t)
	_, d, _ := openTown(t, i.config)
	before := heap()
	for n := range 12 {
		slow := i.dial(d, allNetworks[1+n%4], "127.1.0.2", "1002", i.client(""))
		request := []byte(slow.request("OPTIONS", bob, "", ""))
		_ = slow.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for range 3000 {
			if _, err := slow.conn.Write(request); err != nil {
				break // the door has hung up, or reads no more
			}
		}
		good := i.dial(d, allNetworks[n%5], "127.1.0.1", "1001", i.client(""))
		good.login()
		good.isServed("a client over " + good.conn.network)
	}
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("they hold %d KiB", grown>>10)
	}
}

// webSocket is a stream of the messages on a WebSocket, which knows where it is.
type webSocket struct {
	net.Conn
	local net.Addr
}

func (w webSocket) LocalAddr() net.Addr { return w.local }

func dialWebSocket(ctx, life context.Context, dialer *net.Dialer, url string, config *tls.Config) (net.Conn, error) {
	var w webSocket
	transport := &http.Transport{TLSClientConfig: config, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			w.local = conn.LocalAddr()
		}
		return conn, err
	}}
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"sip"}})
	if err != nil {
		return nil, err
	}
	w.Conn = websocket.NetConn(life, conn, websocket.MessageText)
	return w, nil
}
