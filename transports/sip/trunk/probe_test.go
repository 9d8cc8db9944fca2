package trunk

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestProbe(t *testing.T) {
	s := serve(t, always(404), "udp")
	config := local()
	config.NextHop = "sip:" + s.address(0) + ";transport=udp"
	config.Probe = Probe{Every: 20 * time.Millisecond, Failures: 2}
	metrics := plugin.NewMetrics()
	trunk, err := New(t.Context(), plugin.Env{Metrics: metrics}, config)
	if err != nil {
		t.Fatal(err)
	}
	inService := func(want float64) func() bool {
		return func() bool {
			for _, series := range metrics.Series() {
				if series.Name == "sip_trunk_in_service" {
					return series.Value() == want
				}
			}
			return false
		}
	}
	g := start(t, trunk)
	probe := s.next(t, "OPTIONS") // whatever it is answered
	if want := "sip:" + s.address(0); probe.URIText != want || probe.Get("From") == "" {
		t.Errorf("%s", probe.URIText)
	}
	eventually(t, "in service", inService(1))
	s.answers(always(503))
	eventually(t, "out of service", inService(0))
	s.count("MESSAGE")
	_, err = trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "out of service", err, message.Unavailable, true)
	if s.count("MESSAGE") != 0 {
		t.Error("it is out of service, and something is sent")
	}
	for len(g.reachable) > 0 {
		<-g.reachable
	}
	s.answers(ok)
	received(t, "the engine is told", g.reachable)
	eventually(t, "in service again", inService(1))
	if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
		t.Error(err)
	}
}

// TestProbeSaysWhy: the log has what is to be mended.
func TestProbeSaysWhy(t *testing.T) {
	s := serve(t, ok, "tcp")
	for hop, why := range map[string]string{
		fmt.Sprintf("sip:127.0.0.1:%d;transport=tcp", deadPort(t)): "connection refused",
		"sips:" + s.address(0):                           "tls",
		"sip:" + serve(t, always(503), "udp").address(0): "answered 503",
	} {
		config := local()
		config.NextHop = hop
		config.Probe = Probe{Every: 20 * time.Millisecond, Failures: 1}
		log := &logged{}
		trunk, err := New(t.Context(), plugin.Env{Log: slog.New(slog.NewTextHandler(log, nil))}, config)
		if err != nil {
			t.Fatal(err)
		}
		start(t, trunk)
		eventually(t, hop+": "+why, func() bool { return strings.Contains(log.text(), why) })
	}
}

// TestComplaints: of what messages suffer from, the log has a line, and not one for
// each.
func TestComplaints(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct {
		servers, what, why string
		reason             message.Reason
	}{
		{service(t, "_sip._tcp.", deadPort(t)), leadsInside, "domain=b.example", message.UnknownRecipient},
		{silent.LocalAddr().String(), silentDNS, "domain=b.example", message.Unavailable},
	} {
		config := local()
		config.NameServers = []string{test.servers}
		log := &logged{}
		trunk, err := New(t.Context(), plugin.Env{Log: slog.New(slog.NewTextHandler(log, nil))}, config)
		if err != nil {
			t.Fatal(err)
		}
		start(t, trunk)
		for range 2 {
			_, err := trunk.Send(t.Context(), testMessage(), delivery())
			fails(t, test.what, err, test.reason, test.reason == message.Unavailable)
		}
		if text := log.text(); strings.Count(text, test.what) != 1 || !strings.Contains(text, test.why) {
			t.Errorf("%q isn't told once, but %s", test.what, text)
		}
	}
	now, log := time.Now(), &logged{}
	c := newComplaints(slog.New(slog.NewTextHandler(log, nil)))
	for _, after := range []time.Duration{0, complainEvery - 1, complainEvery} {
		c.of(refusedCredentials, now.Add(after), message.Unauthenticated)
	}
	if n := strings.Count(log.text(), refusedCredentials); n != 2 {
		t.Errorf("told %d times", n)
	}
}

// logged is a log that can be read while it is written.
type logged struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func (t *Trunk) isAlive(test *testing.T) bool {
	ctx, cancel := context.WithTimeout(test.Context(), soon)
	defer cancel()
	return t.ask(ctx, t.work.Load()) == nil
}

// TestProbedAnswers: what shows that somebody is there.
func TestProbedAnswers(t *testing.T) {
	for status, alive := range map[int]bool{200: true, 401: true, 404: true, 405: true, 483: true, 500: true, 603: true, 408: false, 430: false, 503: false} {
		s := serve(t, always(status), "udp")
		config := local()
		config.NextHop = "sip:" + s.address(0)
		trunk, _ := openTrunk(t, config)
		if got := trunk.isAlive(t); got != alive {
			t.Errorf("%d: %t", status, got)
		}
	}
}

// TestProbeOfSeveralServers: one that answers is enough.
func TestProbeOfSeveralServers(t *testing.T) {
	first, second := serve(t, always(503), "tcp"), serve(t, ok, "tcp")
	config := local()
	config.NextHop = "sip:b.example"
	config.NameServers = []string{service(t, "_sip._tcp.", deadPort(t), port(first, 0), port(second, 0))}
	trunk, _ := openTrunk(t, config)
	eventually(t, "alive", func() bool { return trunk.isAlive(t) })
	second.stop()
	if trunk.isAlive(t) {
		t.Error("nobody is there, and it is alive")
	}
}

// TestReachableAfterMisses: a message that got through, or a probe, tells the
// engine that others may.
func TestReachableAfterMisses(t *testing.T) {
	trunk, err := New(t.Context(), plugin.Env{}, func() Config { c := local(); c.NextHop = "sip:127.0.0.1"; return c }())
	if err != nil {
		t.Fatal(err)
	}
	g := newGate()
	trunk.note(nil, g)
	trunk.health.reached(g)
	if len(g.reachable) != 0 {
		t.Error("nothing was missed, and the engine is told")
	}
	trunk.health.missed.Store(true)
	trunk.health.reached(g)
	trunk.health.missed.Store(true)
	trunk.note(errors.New("gone"), g)
	trunk.note(nil, g)
	if len(g.reachable) != 2 {
		t.Errorf("told %d times, want 2", len(g.reachable))
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: writePEM(t, "CERTIFICATE", der)}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), kind)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// sign makes a certificate for a name.
func (a *authority) sign(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestTLSName: the certificate must be for the name that was asked for, not for
// the one that DNS gives the server.
func TestTLSName(t *testing.T) {
	a := newAuthority(t)
	for name, good := range map[string]bool{"b.example": true, "host.b.example": false, "c.example": false} {
		s := secureServer(t, a.sign(t, name), ok)
		config := local()
		config.NextHop = "sips:b.example"
		config.TLS.CA = a.file
		config.NameServers = []string{service(t, "_sips._tcp.", port(s, 0))}
		trunk, _ := openTrunk(t, config)
		_, err := trunk.Send(t.Context(), testMessage(), delivery())
		if good && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !good {
			fails(t, name, err, message.Unavailable, true)
			if s.count("MESSAGE") != 0 {
				t.Errorf("%s: something was sent", name)
			}
		}
	}
}

func TestTLSUnknownAuthority(t *testing.T) {
	s := secureServer(t, newAuthority(t).sign(t, "b.example"), ok)
	config := local()
	config.NextHop = "sip:b.example;transport=tls"
	config.TLS.CA = newAuthority(t).file
	config.NameServers = []string{service(t, "_sips._tcp.", port(s, 0))}
	trunk, _ := openTrunk(t, config)
	_, err := trunk.Send(t.Context(), testMessage(), delivery())
	fails(t, "signed by a stranger", err, message.Unavailable, true)
}

// TestClientCertificate: the server sees ours.
func TestClientCertificate(t *testing.T) {
	a := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	config := wire.Config{TLS: &tls.Config{
		Certificates: []tls.Certificate{a.sign(t, "b.example")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}}
	s := serveAt(t, ok, config, wire.Listener{Network: "tls", Address: netip.AddrPortFrom(loopback, 0)})
	ours := a.sign(t, "a.example")
	key, err := x509.MarshalPKCS8PrivateKey(ours.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	c := local()
	c.NextHop = fmt.Sprintf("sips:b.example:%d", port(s, 0))
	c.NameServers = []string{zone(t, "b.example. 60 IN A 127.0.0.1")}
	c.TLS.CA = a.file
	c.TLS.Certificate, c.TLS.Key = writePEM(t, "CERTIFICATE", ours.Certificate[0]), writePEM(t, "PRIVATE KEY", key)
	trunk, _ := openTrunk(t, c)
	if _, err := trunk.Send(t.Context(), testMessage(), delivery()); err != nil {
		t.Fatal(err)
	}
	if shown := s.next(t, "MESSAGE").Certificate(); shown == nil || !bytes.Equal(shown.Raw, ours.Certificate[0]) {
		t.Error("the server sees another certificate, or none")
	}
}
