package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs the certificates of a test.
type authority struct {
	t           testing.TB
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pool        *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	var der []byte
	a.key, der = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true})
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.certificate)
	return a
}

// sign makes a key and a certificate for it; the first is the authority's own.
func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // before the clock of a bubble begins
	template.NotAfter = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

// issue returns a certificate for a name and loopback.
func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key, der := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is a configuration that takes clients' certificates but doesn't demand
// them.
func (a *authority) server(name string) *tls.Config {
	a.t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.issue(name)}, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven}
}

func loopbacks() map[string]netip.AddrPort {
	return map[string]netip.AddrPort{"IPv4": netip.MustParseAddrPort("127.0.0.1:0"), "IPv6": netip.MustParseAddrPort("[::1]:0")}
}

// openEach starts an endpoint that listens on one network.
func openEach(t testing.TB, network string, address netip.AddrPort, config Config, handle Handler) *Endpoint {
	t.Helper()
	return openOn(t, []Listener{{network, address}}, config, handle)
}

// dialTLS opens a connection to the last listener of an endpoint.
func dialTLS(t testing.TB, e *Endpoint, config *tls.Config) *tcpPeer {
	t.Helper()
	p := dialTCP(t, e)
	secure := tls.Client(p.Conn, config)
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	p.Conn = secure
	p.Reader.Reset(secure)
	return p
}

func TestTLS(t *testing.T) {
	authority := newAuthority(t)
	for family, address := range loopbacks() {
		for _, with := range []string{"a certificate", "none"} {
			t.Run(family+" with "+with, func(t *testing.T) {
				exchanges := make(chan *Exchange, 1)
				e := openEach(t, "tls", address, Config{TLS: authority.server("sip.example.com")}, func(_ context.Context, x *Exchange) {
					x.Answer(Reply{Status: 200})
					exchanges <- x
				})
				client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com"}
				if with == "a certificate" {
					client.Certificates = []tls.Certificate{authority.issue("peer.example.org")}
				}
				p := dialTLS(t, e, client)
				p.say(hello("a"))
				if got := status(p.hear()); got != "200 OK" {
					t.Error(got)
				}
				x := <-exchanges
				got := ""
				if x.Certificate() != nil {
					got = x.Certificate().Subject.CommonName
				}
				if want := map[string]string{"a certificate": "peer.example.org"}[with]; got != want {
					t.Errorf("certificate of %q, want %q", got, want)
				}
				flow, err := ParseFlow(x.Flow.String())
				if err != nil || flow != x.Flow || flow.Network != "tls" {
					t.Errorf("%v, %v", flow, err)
				}
				there(t, e, flow, p, "Via: SIP/2.0/TLS "+e.Addrs()[0].String()+";")
			})
		}
	}
}

// there sends a request to a peer and has it answered.
func there(t *testing.T, e *Endpoint, flow Flow, p interface {
	hear() string
	say(string)
}, via string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		response, err := e.Do(t.Context(), flow, testOutgoing)
		if err == nil && response.Status != 202 {
			t.Errorf("%+v", response)
		}
		done <- err
	}()
	request := p.hear()
	if !strings.Contains(request, via) {
		t.Errorf("no %q in %q", via, request)
	}
	p.say(answerTo(request))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// answerTo is what a peer says to a request of ours.
func answerTo(request string) string {
	answer := "SIP/2.0 202 Accepted\r\n"
	for line := range strings.SplitSeq(request, "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "Via", "From", "To", "Call-ID", "CSeq":
			answer += line + "\r\n"
		}
	}
	return answer + "Content-Length: 0\r\n\r\n"
}

// TestCertificatesAreExchanged: new connections get the new one, old ones go on.
func TestCertificatesAreExchanged(t *testing.T) {
	authority := newAuthority(t)
	var current atomic.Pointer[tls.Config]
	current.Store(authority.server("old.example.com"))
	config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }}
	e := openEach(t, "tls", loopbacks()["IPv4"], Config{TLS: config}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	before := dialTLS(t, e, &tls.Config{RootCAs: authority.pool, ServerName: "old.example.com"})
	current.Store(authority.server("new.example.com"))
	after := dialTLS(t, e, &tls.Config{RootCAs: authority.pool, ServerName: "new.example.com"})
	for _, p := range []*tcpPeer{before, after} {
		p.say(hello("a"))
		if got := status(p.hear()); got != "200 OK" {
			t.Error(got)
		}
	}
}

func TestTLSNeedsACertificate(t *testing.T) {
	for _, network := range []string{"tls", "wss"} {
		if _, err := Listen([]Listener{{network, loopbacks()["IPv4"]}}, Config{}); err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// TestBadHandshakes: who speaks no TLS, or has a stranger's certificate, is sent
// away.
func TestBadHandshakes(t *testing.T) {
	authority, stranger := newAuthority(t), newAuthority(t)
	e := openEach(t, "tls", loopbacks()["IPv4"], Config{TLS: authority.server("sip.example.com")}, nil)
	plain := dialTCP(t, e)
	plain.say(hello("a"))
	for _, err := plain.ReadByte(); err == nil; _, err = plain.ReadByte() { // an alert
	}
	p := dialTCP(t, e)
	client := &tls.Config{RootCAs: authority.pool, ServerName: "sip.example.com", Certificates: []tls.Certificate{stranger.issue("peer.example.org")}, MaxVersion: tls.VersionTLS12}
	if err := tls.Client(p.Conn, client).Handshake(); err == nil {
		t.Error("the stranger was let in")
	}
	waitFor(t, func() bool { return e.Counts().EndedHandshake == 2 && e.Counts().Connections == 0 })
}

// waitFor waits until something is so.
func waitFor(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
}

// echo answers each request with its body.
func echo(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200, Body: x.Body}) }
