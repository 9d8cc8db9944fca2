package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// certify writes a certificate for smsc.example.com, signed by itself, and its key.
func certify(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smsc.example.com"}, DNSNames: []string{"smsc.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("certificate.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", secret)
}

// secure is an SMSC that wants TLS and our certificate. It tells of each bind.
func secure(t *testing.T, certificate, key string) (address string, binds <-chan wire.Packet) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	c := &caller{binds: make(chan wire.Packet, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveOnce(ctx, listener, c)
	}()
	t.Cleanup(func() {
		stop()
		listener.Close()
		<-done
	})
	return listener.Addr().String(), c.binds
}

// serveOnce serves the first connection that gets as far as to bind.
func serveOnce(ctx context.Context, listener net.Listener, c *caller) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if conn.(*tls.Conn).HandshakeContext(ctx) == nil {
			wire.NewSession(conn, wire.Config{}, c).Run(ctx)
			return
		}
		conn.Close()
	}
}

func TestTLS(t *testing.T) {
	certificate, key := certify(t)
	address, binds := secure(t, certificate, key)
	b := &bench{T: t, gate: newGate()}
	b.open(plugin.Env{Instance: "vendor"}, func(c *Config) {
		c.Connect = []string{address}
		c.TLS = TLS{Enabled: true, CA: certificate, Certificate: certificate, Key: key, ServerName: "smsc.example.com"}
	})
	if p := <-binds; p.ID != pdu.BindTransceiverID {
		t.Errorf("the SMSC gets %s", wire.Name(p.ID))
	}
}

func TestTLSOfSomebodyElse(t *testing.T) {
	certificate, key := certify(t)
	other, _ := certify(t)
	for name, setting := range map[string]TLS{
		"another name":      {CA: certificate, ServerName: "other.example.com"},
		"the host":          {CA: certificate},
		"another authority": {CA: other, ServerName: "smsc.example.com"},
	} {
		address, binds := secure(t, certificate, key)
		b := &bench{T: t, gate: newGate()}
		setting.Enabled, setting.Certificate, setting.Key = true, certificate, key
		b.open(plugin.Env{Instance: "vendor"}, func(c *Config) { c.Connect, c.TLS = []string{address}, setting })
		b.until("it doesn't trust it", func() bool { return b.client.metrics.failures[failedConnect].Value() >= 2 })
		b.end()
		if len(binds) > 0 {
			t.Errorf("%s: it binds all the same", name)
		}
	}
}

func TestTLSFilesAreReadAtOnce(t *testing.T) {
	certificate, key := certify(t)
	for name, setting := range map[string]TLS{
		"no file":          {CA: filepath.Join(t.TempDir(), "none")},
		"no certificate":   {CA: key},
		"the wrong way up": {Certificate: key, Key: certificate},
	} {
		config := Defaults
		config.TLS = setting
		config.TLS.Enabled = true
		if _, err := New(t.Context(), plugin.Env{}, config); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
