package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Config is the section of an SMPP server in the configuration file.
type Config struct {
	Listen   []string `yaml:"listen" doc:"where ESMEs connect: tcp://ADDRESS:PORT, tls://ADDRESS:PORT"`
	TLS      TLS      `yaml:"tls"`
	SystemID string   `yaml:"system_id" doc:"who we are to ESMEs"`

	Binds    int `yaml:"binds" doc:"how many sessions an account may have at once; its attribute smpp.binds goes first"`
	Rate     int `yaml:"rate" doc:"requests a second that an account may make over all of its sessions, each recipient of a submit_multi being one; beyond that it gets ESME_RTHROTTLED; 0: as many as we can take; its attribute smpp.rate goes first"`
	Window   int `yaml:"window" doc:"how many deliver_sm may wait for an ESME's answer on each session; its attribute smpp.window goes first"`
	InWindow int `yaml:"in_window" doc:"how many requests of an ESME may wait for our answer on each session; beyond that it gets ESME_RTHROTTLED"`

	EnquireLink time.Duration `yaml:"enquire_link" doc:"how long an ESME may be silent before it is asked whether it is there"`
	Response    time.Duration `yaml:"response" doc:"how long an ESME may take for an answer; then it isn't known whether it has the message"`
	Idle        time.Duration `yaml:"idle" doc:"how long a session lasts on which nothing but enquire_link comes; 0: as long as the ESME likes"`

	Dialect translate.Dialect `yaml:"dialect"`
	Errors  translate.Errors  `yaml:"errors"`
	Outbind Outbind           `yaml:"outbind"`
	Limits  Limits            `yaml:"limits"`
}

// TLS is for the listeners that begin with tls://.
type TLS struct {
	Certificate string `yaml:"certificate" doc:"file of our certificate and those that lead to its root, PEM; read anew when it changes"`
	Key         string `yaml:"key" doc:"file of its key, PEM; read anew when it changes"`
	ClientCA    string `yaml:"client_ca" doc:"file of the certificates, PEM, one of which must have signed an ESME's; empty: ESMEs need none"`
}

// Outbind is what we say to an ESME that is to bind because something waits for
// it: one whose account has the attribute smpp.outbind (SMPP 3.4 §4.1.7).
type Outbind struct {
	Password string `yaml:"password" doc:"what we prove with, besides system_id, that it is us, at most 64 characters; SMPP has room for 8"`
}

// Limits of what is let in.
type Limits struct {
	Binds                 int `yaml:"binds" doc:"sessions at once, of all accounts"`
	ConnectionsPerAddress int `yaml:"connections_per_address" doc:"connections from one address at once"`
	PDU                   int `yaml:"pdu" doc:"octets of a PDU"`
}

// Defaults are those of a server that isn't reached from elsewhere before its
// operator says so.
var Defaults = Config{
	Listen:      []string{"tcp://127.0.0.1:2775"},
	SystemID:    "imgate",
	Binds:       8,
	Window:      50,
	InWindow:    500,
	EnquireLink: 30 * time.Second,
	Response:    30 * time.Second,
	Dialect:     translate.Defaults(),
	Limits:      Limits{Binds: 1000, ConnectionsPerAddress: 100, PDU: 70 << 10},
}

// Bounds of what the configuration and the accounts may say.
const (
	maxBinds  = 10_000
	maxRate   = 100_000
	maxWindow = 10_000
	minPDU    = 1 << 10
	maxPDU    = 1 << 20
)

// Validate names every key that is wrong.
func (c Config) Validate() error {
	var p problems
	c.checkListen(&p)
	c.checkTLS(&p)
	p.expect(isText(c.SystemID, 15), "system_id", "1 to 15 characters of ASCII (SMPP 3.4 §4.1.2)")
	p.expect(c.Outbind.Password == "" || isText(c.Outbind.Password, wire.MaxPassword), "outbind.password", "at most 64 characters of ASCII")
	p.between(c.Binds, 1, maxBinds, "binds")
	p.between(c.Rate, 0, maxRate, "rate")
	p.between(c.Window, 1, maxWindow, "window")
	p.between(c.InWindow, 1, maxWindow, "in_window")
	p.within(c.EnquireLink, time.Second, time.Hour, "enquire_link")
	p.within(c.Response, time.Second, 35*time.Second, "response")
	p.expect(c.Idle == 0 || c.Idle >= time.Minute, "idle", "0, or at least 1m")
	p.between(c.Limits.Binds, 1, maxBinds, "limits.binds")
	p.between(c.Limits.ConnectionsPerAddress, 1, maxBinds, "limits.connections_per_address")
	p.between(c.Limits.PDU, minPDU, maxPDU, "limits.pdu")
	return errors.Join(append(p, c.Dialect.Validate("dialect."), c.Errors.Validate("errors."))...)
}

// problems are keys that are wrong.
type problems []error

func (p *problems) expect(ok bool, key, expected string) {
	if !ok {
		*p = append(*p, &plugin.InvalidKey{Key: key, Expected: expected})
	}
}

func (p *problems) between(n, least, most int, key string) {
	p.expect(n >= least && n <= most, key, fmt.Sprintf("between %d and %d", least, most))
}

func (p *problems) within(d, least, most time.Duration, key string) {
	p.expect(d >= least && d <= most, key, "between "+plugin.DurationText(least)+" and "+plugin.DurationText(most))
}

// isText tells whether s can stand in a C-octet string of so many octets.
func isText(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (c Config) checkListen(p *problems) {
	p.expect(len(c.Listen) > 0, "listen", `at least one address such as "tcp://127.0.0.1:2775"`)
	for i, listen := range c.Listen {
		key := fmt.Sprintf("listen[%d]", i)
		_, err := parseListen(listen)
		p.expect(err == nil, key, `an address such as "tcp://127.0.0.1:2775" or "tls://[::1]:3550" (an IP address, not a name)`)
		p.expect(!slices.Contains(c.Listen[:i], listen), key, "each address once")
	}
}

func (c Config) checkTLS(p *problems) {
	needed := slices.ContainsFunc(c.Listen, func(s string) bool { return strings.HasPrefix(s, "tls://") })
	p.expect(!needed || c.TLS.Certificate != "", "tls.certificate", "a file, since listen has a tls:// address")
	p.expect(!needed || c.TLS.Key != "", "tls.key", "a file, since listen has a tls:// address")
	p.expect(needed || c.TLS == TLS{}, "listen", "a tls:// address, where tls is set")
	if !needed || c.TLS.Certificate == "" || c.TLS.Key == "" {
		return
	}
	if err := certificates.Files(c.TLS).Validate("tls.", c.TLS.clients()); err != nil {
		*p = append(*p, err)
	}
}

// listen is an item of Config.Listen.
type listen struct {
	secure  bool
	address netip.AddrPort
}

var errListen = errors.New("not an address to listen on")

func parseListen(s string) (listen, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	if scheme != "tcp" && scheme != "tls" {
		return listen{}, errListen
	}
	address, err := netip.ParseAddrPort(rest)
	return listen{scheme == "tls", address}, err
}

// listeners returns where to listen.
func (c Config) listeners() ([]listen, error) {
	all := make([]listen, len(c.Listen))
	for i, text := range c.Listen {
		l, err := parseListen(text)
		if err != nil {
			return nil, fmt.Errorf("listen %q: %w", text, err)
		}
		all[i] = l
	}
	return all, nil
}

// store reads the files; nil if there are none. An error is a *plugin.InvalidKey.
func (t TLS) store(log *slog.Logger) (*certificates.Store, error) {
	if t.Certificate == "" {
		return nil, nil
	}
	return certificates.Open(certificates.Files(t), t.clients(), log)
}

// clients tells whether an ESME must have a certificate.
func (t TLS) clients() tls.ClientAuthType {
	if t.ClientCA == "" {
		return tls.NoClientCert
	}
	return tls.RequireAndVerifyClientCert
}
