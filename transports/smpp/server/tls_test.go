package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificate, files := certify(t, dir)
	g := newGate()
	g.attribute(attributeTLS, "required")
	d := serve(t, g, func(c *Config) {
		c.Listen = []string{"tls://127.0.0.1:0"}
		c.TLS = TLS{Certificate: files.Certificate, Key: files.Key, ClientCA: files.Certificate}
	})
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Leaf)
	with := &tls.Config{RootCAs: roots, ServerName: "imgate", Certificates: []tls.Certificate{certificate}}
	conn, err := tls.Dial("tcp", d.Addrs()[0].String(), with)
	if err != nil {
		t.Fatal(err)
	}
	e := newESME(t, conn)
	e.want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.ROK)
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)

	without := &tls.Config{RootCAs: roots, ServerName: "imgate"}
	conn, err = tls.Dial("tcp", d.Addrs()[0].String(), without)
	if err != nil {
		return // refused in the handshake
	}
	p := connect(conn, nil)
	if a, err := p.ask(t.Context(), bindAs(pdu.BindTransceiverID, "acme", "acme")); err == nil {
		t.Errorf("without a certificate: %+v", a)
	}
}

// TestCertificateIsExchanged without a restart: who connects sees the new one, and
// who is bound stays so.
func TestCertificateIsExchanged(t *testing.T) {
	dir := t.TempDir()
	first, files := certify(t, dir)
	d := serve(t, newGate(), func(c *Config) {
		c.Listen, c.TLS = []string{"tls://127.0.0.1:0"}, files
	})
	connect := func(trusted tls.Certificate) (*tls.Conn, error) {
		roots := x509.NewCertPool()
		roots.AddCert(trusted.Leaf)
		return tls.Dial("tcp", d.Addrs()[0].String(), &tls.Config{RootCAs: roots, ServerName: "imgate"})
	}
	conn, err := connect(first)
	if err != nil {
		t.Fatal(err)
	}
	e := newESME(t, conn)
	e.want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.ROK)
	second, _ := certify(t, dir)
	waitFor(t, "the new certificate is shown", func() bool {
		conn, err := connect(second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
}

// certify makes a certificate that is its own root, for us and for ESMEs.
func certify(t testing.TB, dir string) (tls.Certificate, TLS) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"imgate"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := TLS{Certificate: filepath.Join(dir, "certificate.pem"), Key: filepath.Join(dir, "key.pem")}
	write(t, files.Certificate, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, files.Key, &pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	certificate, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, files
}

func write(t testing.TB, name string, block *pem.Block) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
}
