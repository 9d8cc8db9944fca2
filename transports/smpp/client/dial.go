package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/imgate/imgate/engine/certificates"
)

// TLS is how an SMSC is reached over TLS.
type TLS struct {
	Enabled     bool   `yaml:"enabled" doc:"whether the connection is encrypted"`
	CA          string `yaml:"ca" doc:"a PEM file with the certificates that the SMSC's may be signed by; empty: those of the system"`
	Certificate string `yaml:"certificate" doc:"a PEM file with the certificate that we show; empty: none"`
	Key         string `yaml:"key" doc:"a PEM file with its key"`
	ServerName  string `yaml:"server_name" doc:"the name in the SMSC's certificate; empty: the host of connect"`
}

func (t TLS) check(p *problems) {
	p.expect((t.Certificate == "") == (t.Key == ""), "tls.key", "both tls.certificate and tls.key, or neither")
	unused := !t.Enabled && t != TLS{}
	p.expect(!unused, "tls.enabled", "true, where anything else of tls is set")
	if !t.Enabled || (t.Certificate == "") != (t.Key == "") {
		return
	}
	if err := t.files().Validate("tls."); err != nil {
		*p = append(*p, err)
	}
}

func (t TLS) files() certificates.DialFiles {
	return certificates.DialFiles{CA: t.CA, Certificate: t.Certificate, Key: t.Key}
}

// dial connects to the first of the addresses that answers. Each has its own
// time, names and TLS included. The error tells of all.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var failed []error
	for _, address := range c.config.Connect {
		conn, err := c.dialOne(ctx, address)
		if err == nil {
			return conn, nil
		}
		failed = append(failed, fmt.Errorf("connect to %s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

func (c *Client) dialOne(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.ConnectWithin)
	defer cancel()
	if !c.config.TLS.Enabled {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if c.config.TLS.ServerName != "" {
		host = c.config.TLS.ServerName
	}
	return (&tls.Dialer{Config: c.certificates.Config(host)}).DialContext(ctx, "tcp", address)
}
