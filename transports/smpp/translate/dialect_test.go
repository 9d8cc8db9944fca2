package translate

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestValidate(t *testing.T) {
	if err := dialect(nil).Validate("dialect."); err != nil {
		t.Error(err)
	}
	for key, change := range map[string]func(*Dialect){
		"domain":            func(d *Dialect) { d.Domain = "SMS.example.com" },
		"text.alphabets":    func(d *Dialect) { d.Text.Alphabets = nil },
		"text.alphabets[1]": func(d *Dialect) { d.Text.Alphabets = []plugin.Alphabet{plugin.GSM7, plugin.GSM7} },
		"text.alphabets[0]": func(d *Dialect) { d.Text.Alphabets = []plugin.Alphabet{"utf8"} },
		"text.national[0]":  func(d *Dialect) { d.Text.National = []string{"klingon"} },
		"text.national":     func(d *Dialect) { d.Text.Alphabets = []plugin.Alphabet{plugin.GSM7National} },
		"text.long":         func(d *Dialect) { d.Text.Long = "" },
		"text.payload_over": func(d *Dialect) { d.Text.PayloadOver = 255 },
		"sender":            func(d *Dialect) { d.DefaultSender = "ACME Limited" },
		"source.ton":        func(d *Dialect) { d.Source.TON = 7 },
		"source.npi":        func(d *Dialect) { d.Source.NPI = -2 },
		"destination.npi":   func(d *Dialect) { d.Destination.NPI = 19 },
		"service_type":      func(d *Dialect) { d.ServiceType = "CELLULAR" },
		"receipts":          func(d *Dialect) { d.Receipts = "all" },
		"receipt_ids":       func(d *Dialect) { d.ReceiptIDs = "octal" },
		"validity":          func(d *Dialect) { d.Validity = "" },
		"parts_wait":        func(d *Dialect) { d.PartsWait = 25 * time.Hour },
	} {
		t.Run(key, func(t *testing.T) { expectKeys(t, dialect(change).Validate("dialect."), "dialect."+key) })
	}
	if err := dialect(func(d *Dialect) { d.Receipts = "all" }).Validate(""); err == nil || err.Error() != "receipts: expected none, final or failure" {
		t.Error(err)
	}
}

// TestDefaultsAreFresh: who changes a dialect changes no other.
func TestDefaultsAreFresh(t *testing.T) {
	d := Defaults()
	d.Text.Alphabets[0] = plugin.Latin1
	if Defaults().Text.Alphabets[0] != plugin.GSM7 {
		t.Error("defaults share a list")
	}
}
