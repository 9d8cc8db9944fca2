// Package certificates reads certificates and their keys from files, for doors
// that speak TLS. Files that change are read anew, so that a certificate is
// exchanged without a restart and no connection ends over it.
//
// It must not know what is spoken over TLS, nor who a certificate stands for.
package certificates

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgate/imgate/engine/plugin"
)

// Files are those of one who is connected to: a server.
type Files struct {
	Certificate string `yaml:"certificate" doc:"file of our certificate and those that lead to its root, PEM; read anew when it changes"`
	Key         string `yaml:"key" doc:"file of its key, PEM; read anew when it changes"`
	ClientCA    string `yaml:"client_ca" doc:"file of the certificates, PEM, one of which must have signed a client's; empty: clients need none"`
}

// Validate reads the files and names each that is missing or can't be used: an
// error is one or more *plugin.InvalidKey, whose keys begin with prefix, such as
// "tls.".
func (f Files) Validate(prefix string, clients tls.ClientAuthType) error {
	var errs []error
	wrong := func(key, expected string) {
		errs = append(errs, &plugin.InvalidKey{Key: prefix + key, Expected: expected})
	}
	if f.Certificate == "" {
		wrong("certificate", "a file of our certificate")
	}
	if f.Key == "" {
		wrong("key", "a file of the certificate's key")
	}
	switch verifies := clients >= tls.VerifyClientCertIfGiven; {
	case verifies && f.ClientCA == "":
		wrong("client_ca", "a file of certificates that sign those of clients, since these are checked")
	case !verifies && f.ClientCA != "":
		wrong("client_ca", "nothing, since certificates of clients aren't checked")
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	_, err := f.inner().read()
	return withPrefix(prefix, err)
}

func (f Files) inner() files {
	return files{certificate: f.Certificate, key: f.Key, authorities: f.ClientCA, authoritiesKey: "client_ca"}
}

// DialFiles are those of one who connects: a client.
type DialFiles struct {
	CA          string `yaml:"ca" doc:"file of the certificates, PEM, one of which must have signed the server's; empty: those of the system"`
	Certificate string `yaml:"certificate" doc:"file of the certificate that we show and those that lead to its root, PEM; empty: none"`
	Key         string `yaml:"key" doc:"file of its key, PEM"`
}

// Validate is as Files.Validate.
func (f DialFiles) Validate(prefix string) error {
	if (f.Certificate == "") != (f.Key == "") {
		return &plugin.InvalidKey{Key: prefix + "key", Expected: fmt.Sprintf("both %scertificate and %skey, or neither", prefix, prefix)}
	}
	_, err := f.inner().read()
	return withPrefix(prefix, err)
}

func (f DialFiles) inner() files {
	return files{certificate: f.Certificate, key: f.Key, authorities: f.CA, authoritiesKey: "ca"}
}

func withPrefix(prefix string, err error) error {
	if invalid, ok := errors.AsType[*plugin.InvalidKey](err); ok {
		return &plugin.InvalidKey{Key: prefix + invalid.Key, Expected: invalid.Expected}
	}
	return err
}

// files may be empty, but for a certificate without a key.
type files struct {
	certificate, key, authorities string
	authoritiesKey                string // in the configuration
}

// paths returns those that there are.
func (f files) paths() []string {
	var paths []string
	for _, path := range []string{f.certificate, f.key, f.authorities} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// contents is what was read of files.
type contents struct {
	certificate *tls.Certificate // nil: none
	authorities *x509.CertPool   // nil: none was given
}

// certificates returns the certificate as a tls.Config wants it.
func (c *contents) certificates() []tls.Certificate {
	if c.certificate == nil {
		return nil
	}
	return []tls.Certificate{*c.certificate}
}

// read reads all of the files. An error is a *plugin.InvalidKey.
func (f files) read() (*contents, error) {
	c := &contents{}
	if f.certificate != "" {
		pair, err := readPair(f.certificate, f.key)
		if err != nil {
			return nil, &plugin.InvalidKey{Key: "certificate", Expected: "a file with a certificate, and another with its key: " + err.Error()}
		}
		c.certificate = &pair
	}
	if f.authorities != "" {
		pool, err := readPool(f.authorities)
		if err != nil {
			return nil, &plugin.InvalidKey{Key: f.authoritiesKey, Expected: "a file with certificates: " + err.Error()}
		}
		c.authorities = pool
	}
	return c, nil
}

func readPair(certificate, key string) (tls.Certificate, error) {
	chain, err := readFile(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := readFile(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(chain, private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s, %s: %w", certificate, key, err)
	}
	return pair, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := readFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has none", path)
	}
	return pool, nil
}

// maxFile is more than the certificates of all public authorities take, in
// octets.
const maxFile = 4 << 20

// readFile reads a regular file: anything else might make us wait.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var content bytes.Buffer
	if _, err := content.ReadFrom(io.LimitReader(file, maxFile+1)); err != nil {
		return nil, err
	}
	if content.Len() > maxFile {
		return nil, fmt.Errorf("%s has more than %d octets", path, maxFile)
	}
	return content.Bytes(), nil
}
