package client

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Config is the section of an SMPP client in the configuration file: one SMSC,
// or several of one vendor that are the same to us.
type Config struct {
	Connect    []string     `yaml:"connect" doc:"host:port of the SMSC; the next one is tried when one can't be reached"`
	TLS        TLS          `yaml:"tls"`
	SystemID   string       `yaml:"system_id" doc:"who we are to the SMSC"`
	Password   string       `yaml:"password" doc:"what we prove that with, at most 64 characters; SMPP has room for 8, some SMSCs take more"`
	SystemType string       `yaml:"system_type" doc:"what the SMSC wants to be told; most want nothing"`
	Version    string       `yaml:"version" doc:"of SMPP: 3.3, 3.4 or 5.0"`
	Bind       string       `yaml:"bind" doc:"transceiver, transmitter or receiver; pair: a transmitter and a receiver"`
	Binds      int          `yaml:"binds" doc:"how many at once; of pairs, how many pairs"`
	Range      AddressRange `yaml:"address_range"`

	Window int     `yaml:"window" doc:"how many PDUs may wait for the SMSC's answer on each bind"`
	Rate   float64 `yaml:"rate" doc:"PDUs a second that the SMSC takes, over all binds; each part of a message is one; 0: as many as it can"`
	Queue  int     `yaml:"queue" doc:"how many messages may wait for their turn; those beyond wait in the spool"`

	ConnectWithin time.Duration `yaml:"connect_within" doc:"how long a connection may take, with the look-up of its name and TLS, for each address"`
	BindWithin    time.Duration `yaml:"bind_within" doc:"how long the SMSC may take for its answer to a bind"`
	EnquireLink   time.Duration `yaml:"enquire_link" doc:"how long the SMSC may be silent before it is asked whether it is there"`
	Response      time.Duration `yaml:"response" doc:"how long the SMSC may take for its answer to a message; then it isn't known whether it has it"`
	Reconnect     Reconnect     `yaml:"reconnect"`

	Account string `yaml:"account" doc:"the account that messages from the SMSC belong to; empty: the name of the instance"`

	Dialect translate.Dialect `yaml:"dialect"`
	Errors  translate.Errors  `yaml:"errors"`

	Outbind Outbind `yaml:"outbind"`
}

// AddressRange are the numbers whose messages a receiver wants (SMPP 3.4 §5.2.7).
type AddressRange struct {
	TON     int    `yaml:"ton" doc:"type of number, 0 to 6"`
	NPI     int    `yaml:"npi" doc:"numbering plan, 0 to 18"`
	Numbers string `yaml:"numbers" doc:"a number, or a regular expression as the SMSC reads it; empty: as the SMSC has configured"`
}

// Reconnect says when a bind is tried again.
type Reconnect struct {
	Min time.Duration `yaml:"min" doc:"the first pause; each is up to twice the one before"`
	Max time.Duration `yaml:"max" doc:"the longest pause; the first one where the SMSC has refused us for good"`
}

// Outbind is where an SMSC connects to us and asks us to bind (SMPP 3.4 §2.2.1).
type Outbind struct {
	Listen   string   `yaml:"listen" doc:"address:port where an SMSC connects to ask us to bind as a receiver; empty: nowhere"`
	SystemID string   `yaml:"system_id" doc:"who the SMSC says it is"`
	Password string   `yaml:"password" doc:"what it proves that with"`
	Networks []string `yaml:"networks" doc:"the addresses, or networks such as 192.0.2.0/24, that it connects from"`
}

// How to bind.
const (
	bindTransceiver = "transceiver"
	bindTransmitter = "transmitter"
	bindReceiver    = "receiver"
	bindPair        = "pair"
)

// versions are the values of interface_version (SMPP 3.4 §5.2.4).
var versions = map[string]uint8{"3.3": translate.Version33, "3.4": translate.Version34, "5.0": translate.Version50}

// Defaults are those of most SMSCs.
var Defaults = Config{
	Connect:  []string{"127.0.0.1:2775"},
	SystemID: "imgate",
	Version:  "3.4",
	Bind:     bindTransceiver,
	Binds:    1,
	Window:   10,
	Queue:    10_000,

	ConnectWithin: 10 * time.Second,
	BindWithin:    10 * time.Second,
	EnquireLink:   30 * time.Second,
	Response:      30 * time.Second,
	Reconnect:     Reconnect{Min: time.Second, Max: time.Minute},

	Dialect: translate.Defaults(),
}

// Longest texts of a bind in octets, without the NUL (SMPP 3.4 §4.1.1; of a
// password, what peers take).
const (
	maxSystemID   = 15
	maxPassword   = wire.MaxPassword
	maxSystemType = 12
	maxRange      = 40
)

const (
	maxBinds  = 32
	maxWindow = 1000
	maxQueue  = 1_000_000
	// maxResponse is less than an attempt may take: the end of that shall not come
	// first.
	maxResponse = 35 * time.Second
)

// Validate names every key that is wrong.
func (c Config) Validate() error {
	var p problems
	c.checkPeer(&p)
	c.checkBind(&p)
	c.checkFlow(&p)
	c.Outbind.check(&p)
	p.expect(len(c.Account) <= message.MaxAddress, "account", "at most 256 octets")
	return errors.Join(append(p, c.Dialect.Validate("dialect."), c.Errors.Validate("errors."))...)
}

// problems are keys that are wrong.
type problems []error

func (p *problems) expect(ok bool, key, expected string) {
	if !ok {
		*p = append(*p, &plugin.InvalidKey{Key: key, Expected: expected})
	}
}

func (c Config) checkPeer(p *problems) {
	p.expect(len(c.Connect) > 0 || c.Outbind.Listen != "", "connect", `at least one address such as "smsc.example.com:2775"`)
	for i, address := range c.Connect {
		key := fmt.Sprintf("connect[%d]", i)
		p.expect(isHostPort(address), key, `an address such as "smsc.example.com:2775"`)
		p.expect(!slices.Contains(c.Connect[:i], address), key, "each address once")
	}
	c.TLS.check(p)
}

func isHostPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && bad == nil && n > 0
}

func (c Config) checkBind(p *problems) {
	p.expect(isText(c.SystemID, maxSystemID) && c.SystemID != "", "system_id", "1 to 15 characters of ASCII (SMPP 3.4 §4.1.1)")
	p.expect(isText(c.Password, maxPassword), "password", "at most 64 characters of ASCII")
	p.expect(isText(c.SystemType, maxSystemType), "system_type", "at most 12 characters of ASCII (SMPP 3.4 §4.1.1)")
	p.expect(versions[c.Version] != 0, "version", "3.3, 3.4 or 5.0, in quotes")
	known := slices.Contains([]string{bindTransceiver, bindTransmitter, bindReceiver, bindPair}, c.Bind)
	p.expect(known, "bind", "transceiver, transmitter, receiver or pair")
	p.expect(c.Version != "3.3" || c.Bind != bindTransceiver, "bind", "transmitter, receiver or pair: SMPP 3.3 has no transceiver")
	p.expect(c.Binds >= 1 && c.Binds <= maxBinds, "binds", "between 1 and 32")
	p.expect(c.Range.TON >= 0 && c.Range.TON <= 6, "address_range.ton", "between 0 and 6 (SMPP 3.4 §5.2.5)")
	p.expect(c.Range.NPI >= 0 && c.Range.NPI <= 18, "address_range.npi", "between 0 and 18 (SMPP 3.4 §5.2.6)")
	p.expect(isText(c.Range.Numbers, maxRange), "address_range.numbers", "at most 40 characters of ASCII (SMPP 3.4 §4.1.1)")
}

// isText tells whether s can stand in a C-octet string of so many octets.
func isText(s string, longest int) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= longest
}

func (c Config) checkFlow(p *problems) {
	p.expect(c.Window >= 1 && c.Window <= maxWindow, "window", "between 1 and 1000")
	p.expect(c.Rate == 0 || c.Rate >= 0.1 && c.Rate <= boundless, "rate", "0, or between 0.1 and 100000")
	p.expect(c.Queue >= 1 && c.Queue <= maxQueue, "queue", "between 1 and 1000000")
	p.within("connect_within", c.ConnectWithin, time.Second, time.Minute)
	p.within("bind_within", c.BindWithin, time.Second, time.Minute)
	p.within("response", c.Response, time.Second, maxResponse)
	p.within("enquire_link", c.EnquireLink, time.Second, time.Hour)
	p.within("reconnect.min", c.Reconnect.Min, 100*time.Millisecond, time.Minute)
	p.within("reconnect.max", c.Reconnect.Max, c.Reconnect.Min, time.Hour)
}

func (p *problems) within(key string, d, from, to time.Duration) {
	p.expect(d >= from && d <= to, key, "between "+plugin.DurationText(from)+" and "+plugin.DurationText(to))
}

func (o Outbind) check(p *problems) {
	if o.Listen == "" {
		p.expect(o.SystemID == "" && o.Password == "" && len(o.Networks) == 0, "outbind.listen", "an address such as 192.0.2.1:2776, where anything else of outbind is set")
		return
	}
	_, err := netip.ParseAddrPort(o.Listen)
	p.expect(err == nil, "outbind.listen", "an address such as 192.0.2.1:2776 (an IP address, not a name)")
	p.expect(isText(o.SystemID, maxSystemID) && o.SystemID != "", "outbind.system_id", "1 to 15 characters of ASCII (SMPP 3.4 §4.1.7)")
	p.expect(isText(o.Password, maxPassword), "outbind.password", "at most 64 characters of ASCII")
	p.expect(len(o.Networks) > 0, "outbind.networks", "at least one address or network")
	_, wrong := networksOf(o.Networks)
	p.expect(wrong == nil, "outbind.networks", "addresses such as 192.0.2.1, or networks such as 192.0.2.0/24")
}

// networksOf reads addresses and networks.
func networksOf(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			address, err := netip.ParseAddr(text)
			if err != nil {
				return nil, err
			}
			network = netip.PrefixFrom(address, address.BitLen())
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}

// modes are the binds that the instance is to have.
func (c Config) modes() (modes []string) {
	for range c.Binds {
		if c.Bind == bindPair {
			modes = append(modes, bindTransmitter, bindReceiver)
			continue
		}
		modes = append(modes, c.Bind)
	}
	return modes
}

// wanted is how many binds there are to be that can send, or receive. Those that an
// SMSC asks for come and go.
func (c Config) wanted(sending bool) (n int) {
	if len(c.Connect) == 0 {
		return 0
	}
	unable := bindTransmitter
	if sending {
		unable = bindReceiver
	}
	for _, mode := range c.modes() {
		if mode != unable {
			n++
		}
	}
	return n
}
