package server

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for key, spoil := range map[string]func(*Config){
		"listen":                         func(c *Config) { c.Listen = nil },
		"listen[0]":                      func(c *Config) { c.Listen = []string{"udp://127.0.0.1:2775"} },
		"listen[1]":                      func(c *Config) { c.Listen = []string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:1"} },
		"tls.certificate":                func(c *Config) { c.Listen, c.TLS.Key = []string{"tls://127.0.0.1:1"}, "k" },
		"tls.key":                        func(c *Config) { c.Listen, c.TLS.Certificate = []string{"tls://127.0.0.1:1"}, "c" },
		"listen ":                        func(c *Config) { c.TLS = TLS{Certificate: "c", Key: "k"} },
		"system_id":                      func(c *Config) { c.SystemID = "sixteen letters." },
		"binds":                          func(c *Config) { c.Binds = 0 },
		"rate":                           func(c *Config) { c.Rate = -1 },
		"window":                         func(c *Config) { c.Window = 0 },
		"in_window":                      func(c *Config) { c.InWindow = 0 },
		"enquire_link":                   func(c *Config) { c.EnquireLink = 0 },
		"response":                       func(c *Config) { c.Response = time.Minute },
		"idle":                           func(c *Config) { c.Idle = time.Second },
		"outbind.password":               func(c *Config) { c.Outbind.Password = strings.Repeat("x", 65) },
		"limits.binds":                   func(c *Config) { c.Limits.Binds = 0 },
		"limits.connections_per_address": func(c *Config) { c.Limits.ConnectionsPerAddress = 0 },
		"limits.pdu":                     func(c *Config) { c.Limits.PDU = 10 },
		"dialect.domain":                 func(c *Config) { c.Dialect.Domain = "" },
	} {
		c := Defaults
		spoil(&c)
		var keys []string
		for _, err := range plugin.Mistakes(c.Validate()) {
			if wrong, ok := errors.AsType[*plugin.InvalidKey](err); ok {
				keys = append(keys, wrong.Key)
			}
		}
		if !slices.Equal(keys, []string{strings.TrimSpace(key)}) {
			t.Errorf("%s: %v", key, keys)
		}
	}
}

// TestMissingFiles: files that aren't there, or aren't what they should be, are named
// before anything is opened.
func TestMissingFiles(t *testing.T) {
	_, files := certify(t, t.TempDir())
	certificate, key := files.Certificate, files.Key
	for wrong, files := range map[string]TLS{
		"":                {Certificate: certificate, Key: key, ClientCA: certificate},
		"tls.certificate": {Certificate: certificate, Key: "none"},
		"tls.client_ca":   {Certificate: certificate, Key: key, ClientCA: key},
	} {
		c := Defaults
		c.Listen, c.TLS = []string{"tls://127.0.0.1:0"}, files
		found, named := errors.AsType[*plugin.InvalidKey](c.Validate())
		if named != (wrong != "") || named && found.Key != wrong {
			t.Errorf("%q: %v", wrong, c.Validate())
		}
		if _, err := New(t.Context(), plugin.Env{}, c); (err != nil) != (wrong != "") {
			t.Errorf("%q: opened with %v", wrong, err)
		}
	}
}

func TestTerms(t *testing.T) {
	account := plugin.Account{Attributes: map[string]string{
		attributeBinds: "3", attributeRate: "100", attributeWindow: "7", attributeTLS: "required",
		attributeNetworks: "192.0.2.0/24, 2001:db8::1", attributeSenders: "447.*", attributeOutbind: "esme.example.com:2776",
	}}
	got, err := termsOf(account, Defaults)
	if err != nil {
		t.Fatal(err)
	}
	if got.binds != 3 || got.rate != 100 || got.window != 7 || !got.tlsOnly || got.outbind != "esme.example.com:2776" || len(got.networks) != 2 {
		t.Errorf("%+v", got)
	}
	for address, want := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "192.0.3.9": false, "2001:db8::1": true, "2001:db8::2": false} {
		if got.admits(netip.MustParseAddr(address)) != want {
			t.Errorf("admits %s: %t", address, !want)
		}
	}
	usual, err := termsOf(plugin.Account{}, Defaults)
	if err != nil || usual.binds != Defaults.Binds || usual.window != Defaults.Window || usual.rate != 0 || !usual.admits(netip.MustParseAddr("::1")) {
		t.Errorf("%+v, %v", usual, err)
	}
	for name, value := range map[string]string{
		attributeBinds: "0", attributeRate: "-1", attributeWindow: "many", attributeTLS: "yes", attributeNetworks: "everywhere",
		attributeSenders: "(", attributeOutbind: "esme.example.com",
	} {
		_, err := termsOf(plugin.Account{Attributes: map[string]string{name: value}}, Defaults)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %q: %v", name, value, err)
		}
	}
	for name, value := range map[string]string{attributeNetworks: ",", attributeSenders: strings.Repeat("a", maxPattern+1)} {
		if _, err := termsOf(plugin.Account{Attributes: map[string]string{name: value}}, Defaults); err == nil {
			t.Errorf("%s %.20q is read", name, value)
		}
	}
}

// TestVouchLeavesAccount: the engine's account stays as it was.
func TestVouchLeavesAccount(t *testing.T) {
	identities := make([]message.Address, 1, 10)
	identities[0] = message.Address{User: "+" + number1}
	account := plugin.Account{Identities: identities}
	var t1 terms
	vouched, ok := t1.vouch(account, fromAcme)
	if !ok || len(vouched.Identities) != 2 || len(account.Identities) != 1 || identities[:2][1] != (message.Address{}) {
		t.Errorf("%v %v", vouched.Identities, identities[:2])
	}
}
