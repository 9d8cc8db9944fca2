package certificates

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

// certificate is one in PEM, with its key.
type certificate struct{ chain, key []byte }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	template.Raw = der
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate: parsed, key: key, serial: 1}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// sign makes a certificate of the name sip.example.com.
func (a *authority) sign(t *testing.T, notAfter time.Time) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), DNSNames: []string{"sip.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate{
		chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func later() time.Time { return time.Now().Add(time.Hour) }

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	// A new file in the place of the old one, as those who exchange certificates do.
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// files writes a certificate and an authority.
func (c certificate) files(t *testing.T, ca []byte) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Certificate: filepath.Join(dir, "certificate.pem"), Key: filepath.Join(dir, "key.pem")}
	write(t, f.Certificate, c.chain)
	write(t, f.Key, c.key)
	if ca != nil {
		f.ClientCA = filepath.Join(dir, "ca.pem")
		write(t, f.ClientCA, ca)
	}
	return f
}

// served is what a client sees that connects.
type served struct {
	serial int64 // of the server's certificate
	err    error // of the handshake, on either side
}

// handshake connects a client to a server.
func handshake(t *testing.T, server, client *tls.Config) served {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			accepted <- err
			return
		}
		defer conn.Close()
		_, err = tls.Server(conn, server).Write([]byte("x")) // in TLS 1.3 a client hears only now that it isn't trusted
		accepted <- err
	}()
	plain, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, client)
	_, err = io.ReadFull(conn, make([]byte, 1))
	s := served{}
	if err == nil {
		s.serial = conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	plain.Close()
	s.err = errors.Join(err, <-accepted)
	return s
}

func TestValidate(t *testing.T) {
	a := newAuthority(t)
	good := a.sign(t, later()).files(t, a.pem())
	other := a.sign(t, later()).files(t, nil)
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, nil)
	large := filepath.Join(t.TempDir(), "large")
	write(t, large, bytes.Repeat([]byte("x"), maxFile+1))
	for name, test := range map[string]struct {
		files   Files
		clients tls.ClientAuthType
		wrong   string
	}{
		"server":                {Files{good.Certificate, good.Key, ""}, tls.NoClientCert, ""},
		"clients may":           {good, tls.VerifyClientCertIfGiven, ""},
		"clients must":          {good, tls.RequireAndVerifyClientCert, ""},
		"no certificate":        {Files{"", good.Key, ""}, tls.NoClientCert, "tls.certificate"},
		"no key":                {Files{good.Certificate, "", ""}, tls.NoClientCert, "tls.key"},
		"no authority":          {Files{good.Certificate, good.Key, ""}, tls.VerifyClientCertIfGiven, "tls.client_ca"},
		"an idle authority":     {good, tls.NoClientCert, "tls.client_ca"},
		"another's key":         {Files{good.Certificate, other.Key, ""}, tls.NoClientCert, "tls.certificate"},
		"no such file":          {Files{good.Certificate, "none", ""}, tls.NoClientCert, "tls.certificate"},
		"a directory":           {Files{t.TempDir(), good.Key, ""}, tls.NoClientCert, "tls.certificate"},
		"a device":              {Files{"/dev/zero", good.Key, ""}, tls.NoClientCert, "tls.certificate"},
		"too large":             {Files{large, good.Key, ""}, tls.NoClientCert, "tls.certificate"},
		"nothing in it":         {Files{good.Certificate, good.Key, empty}, tls.RequireAndVerifyClientCert, "tls.client_ca"},
		"a key as an authority": {Files{good.Certificate, good.Key, good.Key}, tls.RequireAndVerifyClientCert, "tls.client_ca"},
	} {
		err := test.files.Validate("tls.", test.clients)
		invalid, _ := errors.AsType[*plugin.InvalidKey](err)
		if (err == nil) != (test.wrong == "") || err != nil && (invalid == nil || invalid.Key != test.wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if _, opened := Open(test.files, test.clients, nil); (opened == nil) != (err == nil) {
			t.Errorf("%s: opened with %v", name, opened)
		}
	}
	for name, test := range map[string]struct {
		files DialFiles
		wrong string
	}{
		"nothing":        {DialFiles{}, ""},
		"all":            {DialFiles{good.ClientCA, good.Certificate, good.Key}, ""},
		"no certificate": {DialFiles{Key: good.Key}, "tls.key"},
		"no key":         {DialFiles{Certificate: good.Certificate}, "tls.key"},
		"no such file":   {DialFiles{CA: "none"}, "tls.ca"},
		"another's key":  {DialFiles{Certificate: good.Certificate, Key: other.Key}, "tls.certificate"},
	} {
		err := test.files.Validate("tls.")
		invalid, _ := errors.AsType[*plugin.InvalidKey](err)
		if (err == nil) != (test.wrong == "") || err != nil && (invalid == nil || invalid.Key != test.wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if _, opened := OpenDialer(test.files, nil); (opened == nil) != (err == nil) {
			t.Errorf("%s: opened with %v", name, opened)
		}
	}
}

// TestExchange: files are looked at again after a second; broken ones are told
// once, and those from before stay.
func TestExchange(t *testing.T) {
	a := newAuthority(t)
	first, second := a.sign(t, later()), a.sign(t, later())
	f := first.files(t, nil)
	var log bytes.Buffer
	s, err := Open(f, tls.NoClientCert, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	serial := func() int64 {
		t.Helper()
		now = now.Add(lookEvery)
		s.config(now)
		got := handshake(t, s.Config(), &tls.Config{RootCAs: a.pool(), ServerName: "sip.example.com"})
		if got.err != nil {
			t.Error(got.err)
		}
		return got.serial
	}
	if got := serial(); got != 2 || log.Len() > 0 {
		t.Errorf("certificate %d, %s", got, &log)
	}
	write(t, f.Certificate, second.chain) // its key isn't there yet
	if got := serial(); got != 2 || strings.Count(log.String(), "stay") != 1 {
		t.Errorf("certificate %d, %s", got, &log)
	}
	if got := serial(); got != 2 || strings.Count(log.String(), "stay") != 1 {
		t.Errorf("certificate %d, %s", got, &log)
	}
	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 || strings.Count(log.String(), "stay") != 2 {
		t.Errorf("certificate %d, %s", got, &log)
	}
	write(t, f.Key, second.key)
	s.config(now.Add(lookEvery / 2))
	if got := s.keeper.current.Load().certificate.Leaf.SerialNumber.Int64(); got != 2 {
		t.Errorf("certificate %d within a second", got)
	}
	if got := serial(); got != 3 || strings.Count(log.String(), "read anew") != 1 {
		t.Errorf("certificate %d, %s", got, &log)
	}
	// A file may also be written over, and have the size that it had.
	third := a.sign(t, later())
	for path, content := range map[string][]byte{f.Certificate: third.chain, f.Key: third.key} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if got := serial(); got != 4 {
		t.Errorf("certificate %d", got)
	}
}

// TestSharedConfig: connections have one configuration in common until files change.
func TestSharedConfig(t *testing.T) {
	a := newAuthority(t)
	f := a.sign(t, later()).files(t, nil)
	s, err := Open(f, tls.NoClientCert, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	before := s.config(now)
	if again := s.config(now.Add(lookEvery)); again != before {
		t.Error("two for the same files")
	}
	second := a.sign(t, later())
	write(t, f.Certificate, second.chain)
	write(t, f.Key, second.key)
	after := s.config(now.Add(2 * lookEvery))
	if after == before || after.Certificates[0].Leaf.SerialNumber.Int64() != 3 {
		t.Errorf("still certificate %d", after.Certificates[0].Leaf.SerialNumber)
	}
}

func TestClients(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	f := ours.sign(t, later()).files(t, ours.pem())
	dialer := func(files DialFiles) *tls.Config {
		t.Helper()
		d, err := OpenDialer(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d.Config("sip.example.com")
	}
	client := ours.sign(t, later()).files(t, ours.pem())
	stranger := theirs.sign(t, later()).files(t, nil)
	known := dialer(DialFiles{CA: f.ClientCA, Certificate: client.Certificate, Key: client.Key})
	unknown := dialer(DialFiles{CA: f.ClientCA, Certificate: stranger.Certificate, Key: stranger.Key})
	nobody := dialer(DialFiles{CA: f.ClientCA})
	for name, test := range map[string]struct {
		clients tls.ClientAuthType
		client  *tls.Config
		in      bool
	}{
		"must and has":             {tls.RequireAndVerifyClientCert, known, true},
		"must and has none":        {tls.RequireAndVerifyClientCert, nobody, false},
		"must and has another's":   {tls.RequireAndVerifyClientCert, unknown, false},
		"may and has":              {tls.VerifyClientCertIfGiven, known, true},
		"may and has none":         {tls.VerifyClientCertIfGiven, nobody, true},
		"may and has another's":    {tls.VerifyClientCertIfGiven, unknown, false},
		"isn't asked":              {tls.NoClientCert, known, true},
		"doesn't trust the server": {tls.NoClientCert, dialer(DialFiles{}), false},
	} {
		files := f
		if test.clients == tls.NoClientCert {
			files.ClientCA = ""
		}
		s, err := Open(files, test.clients, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := handshake(t, s.Config(), test.client); (got.err == nil) != test.in {
			t.Errorf("%s: %v", name, got.err)
		}
	}
	s, err := Open(f, tls.RequireAndVerifyClientCert, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := &tls.Config{RootCAs: ours.pool(), ServerName: "sip.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if got := handshake(t, s.Config(), old); got.err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// TestResumption: whose authority isn't trusted any more doesn't come back with
// a ticket.
func TestResumption(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	f := ours.sign(t, later()).files(t, theirs.pem())
	s, err := Open(f, tls.RequireAndVerifyClientCert, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(func(c certificate) ([]byte, []byte) { return c.chain, c.key }(theirs.sign(t, later())))
	if err != nil {
		t.Fatal(err)
	}
	server := s.Config()
	client := &tls.Config{
		RootCAs: ours.pool(), ServerName: "sip.example.com", ClientSessionCache: tls.NewLRUClientSessionCache(1),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
	for range 2 {
		if got := handshake(t, server, client); got.err != nil {
			t.Fatal(got.err)
		}
	}
	write(t, f.ClientCA, ours.pem())
	s.config(time.Now().Add(2 * lookEvery))
	if got := handshake(t, server, client); got.err == nil {
		t.Error("it comes back")
	}
}

func TestWarnings(t *testing.T) {
	a := newAuthority(t)
	for name, test := range map[string]struct {
		notAfter time.Time
		mode     os.FileMode
		want     string
	}{
		"good":             {later(), 0o600, ""},
		"good for a group": {later(), 0o640, ""},
		"expired":          {time.Now().Add(-time.Minute), 0o600, "expired"},
		"open":             {later(), 0o644, "everybody"},
	} {
		f := a.sign(t, test.notAfter).files(t, nil)
		if err := os.Chmod(f.Key, test.mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		if _, err := Open(f, tls.NoClientCert, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), test.want) || (log.Len() > 0) != (test.want != "") {
			t.Errorf("%s: %s", name, &log)
		}
	}
}

// TestExpiryInUse: a certificate that expires while it is in use is told of once,
// and again when the one after it does.
func TestExpiryInUse(t *testing.T) {
	a := newAuthority(t)
	f := a.sign(t, later()).files(t, nil)
	var log bytes.Buffer
	s, err := Open(f, tls.NoClientCert, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	expired := later().Add(lookEvery)
	for i := range 3 {
		s.config(expired.Add(time.Duration(i) * lookEvery))
	}
	if n := strings.Count(log.String(), "expired"); n != 1 {
		t.Errorf("told %d times: %s", n, &log)
	}
	next := a.sign(t, later())
	write(t, f.Key, next.key)
	write(t, f.Certificate, next.chain)
	s.config(expired.Add(3 * lookEvery))
	if n := strings.Count(log.String(), "has expired"); n != 2 {
		t.Errorf("told %d times: %s", n, &log)
	}
}
