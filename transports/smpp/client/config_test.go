package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults.Validate(); err != nil {
		t.Error(err)
	}
}

func TestWrongKeysAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		keys   []string
	}{
		"nowhere to connect":  {func(c *Config) { c.Connect = nil }, []string{"connect"}},
		"no port":             {func(c *Config) { c.Connect = []string{"a.example"} }, []string{"connect[0]"}},
		"twice the same":      {func(c *Config) { c.Connect = []string{"a.example:1", "a.example:1"} }, []string{"connect[1]"}},
		"port 0":              {func(c *Config) { c.Connect = []string{"a.example:0"} }, []string{"connect[0]"}},
		"a certificate alone": {func(c *Config) { c.TLS = TLS{Enabled: true, Certificate: "a"} }, []string{"tls.key"}},
		"no certificate":      {func(c *Config) { c.TLS = TLS{Enabled: true, Certificate: "a", Key: "b"} }, []string{"tls.certificate"}},
		"no such authority":   {func(c *Config) { c.TLS = TLS{Enabled: true, CA: "a"} }, []string{"tls.ca"}},
		"TLS that isn't on":   {func(c *Config) { c.TLS.CA = "a" }, []string{"tls.enabled"}},
		"nobody":              {func(c *Config) { c.SystemID = "" }, []string{"system_id"}},
		"long texts": {func(c *Config) {
			c.SystemID, c.Password, c.SystemType = "1234567890123456", strings.Repeat("x", 65), "1234567890123"
		}, []string{"system_id", "password", "system_type"}},
		"a line end":             {func(c *Config) { c.Password = "a\nb" }, []string{"password"}},
		"no version":             {func(c *Config) { c.Version = "4" }, []string{"version"}},
		"no way to bind":         {func(c *Config) { c.Bind = "both" }, []string{"bind"}},
		"transceiver of 3.3":     {func(c *Config) { c.Version = "3.3" }, []string{"bind"}},
		"no binds":               {func(c *Config) { c.Binds = 0 }, []string{"binds"}},
		"many binds":             {func(c *Config) { c.Binds = 33 }, []string{"binds"}},
		"range":                  {func(c *Config) { c.Range = AddressRange{TON: 7, NPI: 19, Numbers: "ü"} }, []string{"address_range.ton", "address_range.npi", "address_range.numbers"}},
		"no window":              {func(c *Config) { c.Window = 0 }, []string{"window"}},
		"a rate below 0":         {func(c *Config) { c.Rate = -1 }, []string{"rate"}},
		"no queue":               {func(c *Config) { c.Queue = 0 }, []string{"queue"}},
		"deadlines":              {func(c *Config) { c.ConnectWithin, c.BindWithin, c.Response = 0, 0, 0 }, []string{"connect_within", "bind_within", "response"}},
		"longer than an attempt": {func(c *Config) { c.Response = time.Minute }, []string{"response"}},
		"never asks":             {func(c *Config) { c.EnquireLink = 0 }, []string{"enquire_link"}},
		"shrinking pauses":       {func(c *Config) { c.Reconnect = Reconnect{Min: time.Minute, Max: time.Second} }, []string{"reconnect.max"}},
		"no domain":              {func(c *Config) { c.Dialect.Domain = "" }, []string{"dialect.domain"}},
		"outbind nowhere":        {func(c *Config) { c.Outbind.SystemID = "a" }, []string{"outbind.listen"}},
		"outbind of anybody":     {func(c *Config) { c.Outbind = Outbind{Listen: "127.0.0.1:1"} }, []string{"outbind.system_id", "outbind.networks"}},
		"outbind from a name": {func(c *Config) {
			c.Outbind = Outbind{Listen: "localhost:1", SystemID: "a", Networks: []string{"localhost"}}
		}, []string{"outbind.listen", "outbind.networks"}},
		"outbind without connect": {func(c *Config) {
			c.Connect, c.Outbind = nil, Outbind{Listen: "127.0.0.1:1", SystemID: "a", Networks: []string{"127.0.0.1"}}
		}, nil},
		"pairs of 3.3":           {func(c *Config) { c.Version, c.Bind = "3.3", "pair" }, nil},
		"the most that there is": {func(c *Config) { c.Binds, c.Window, c.Queue, c.Rate = 32, 1000, 1_000_000, 100_000 }, nil},
		"a host name and IPv6":   {func(c *Config) { c.Connect = []string{"smsc.example.com:2775", "[2001:db8::1]:2775"} }, nil},
		"networks in all forms": {func(c *Config) {
			c.Outbind = Outbind{Listen: "[::1]:1", SystemID: "a", Networks: []string{"192.0.2.0/24", "2001:db8::1"}}
		}, nil},
	} {
		config := Defaults
		config.Connect = slices.Clone(config.Connect)
		c.change(&config)
		var keys []string
		for _, mistake := range plugin.Mistakes(config.Validate()) {
			if wrong, ok := errors.AsType[*plugin.InvalidKey](mistake); ok {
				keys = append(keys, wrong.Key)
			}
		}
		if !slices.Equal(keys, c.keys) {
			t.Errorf("%s: wrong are %q, want %q", name, keys, c.keys)
		}
	}
}

// TestWanted: what there should be is counted as what is up is.
func TestWanted(t *testing.T) {
	for _, c := range []struct {
		bind             string
		connect          []string
		sending, reading int
	}{
		{bindTransceiver, Defaults.Connect, 3, 3},
		{bindTransmitter, Defaults.Connect, 3, 0},
		{bindReceiver, Defaults.Connect, 0, 3},
		{bindPair, Defaults.Connect, 3, 3},
		{bindReceiver, nil, 0, 0}, // the SMSC connects
	} {
		config := Config{Connect: c.connect, Bind: c.bind, Binds: 3}
		if s, r := config.wanted(true), config.wanted(false); s != c.sending || r != c.reading {
			t.Errorf("%s at %q: %d to send, %d to receive", c.bind, c.connect, s, r)
		}
	}
}
