package ua

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// trust says whom a person at the terminal believes to be the server.
type trust struct{ anybody bool }

func (t *trust) declare(flags *flag.FlagSet) {
	flags.BoolVar(&t.anybody, "insecure", false, "over tls and wss: don't check the server's certificate")
}

func (t trust) config() *tls.Config {
	if !t.anybody {
		return nil
	}
	return &tls.Config{InsecureSkipVerify: true} // as they asked
}

// Trusting is the configuration of an agent that doesn't check certificates.
func Trusting(server target.Server) Config {
	config := at(server)
	config.Secure = trust{anybody: true}.config()
	return config
}

// open makes a connection to a server. What is secure must have a certificate for
// the domain of the agent's address, wherever the server is (RFC 5922 §7.2).
func (a *Agent) open(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: a.patience()}
	switch network {
	case "tls":
		return (&tls.Dialer{NetDialer: dialer, Config: a.tls()}).DialContext(ctx, "tcp", address)
	case "ws", "wss":
		return openWebSocket(ctx, dialer, a.tls(), network+"://"+address)
	}
	return dialer.DialContext(ctx, network, address)
}

// unreached says why there is no connection to a server.
func unreached(server, network string, err error) error {
	overTLS := network == "tls" || network == "wss"
	switch certificate, bad := errors.AsType[*tls.CertificateVerificationError](err); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nobodyListens(server, network, err)
	case bad:
		return fmt.Errorf("the certificate of %s is refused; --insecure takes any: %w", server, certificate.Err)
	case overTLS && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return fmt.Errorf("%s (%s) hangs up: does it speak TLS at this port? %w", server, strings.ToUpper(network), err)
	}
	return fmt.Errorf("reach the SIP server: %w", err)
}

func (a *Agent) tls() *tls.Config {
	config := a.config.Secure.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	if config.ServerName == "" {
		config.ServerName = a.config.Address.Host
	}
	return config
}
