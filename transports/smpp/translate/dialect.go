// Package translate turns messages into SMPP's PDUs and back: addresses, text,
// times, delivery receipts, and our reasons for its status codes. Client and
// server share it. It knows no session: who is bound, and to whom a PDU goes, is
// theirs.
package translate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
)

// Dialect is how one peer speaks SMPP. What has a yaml tag is the operator's;
// start from Defaults.
type Dialect struct {
	Domain        string        `yaml:"domain" doc:"the domain of the SMS service: senders of what comes in get it, so that a reply finds its way back here"`
	Plus          bool          `yaml:"plus" doc:"whether international numbers that come in without a + are recognized: 9 to 15 digits that don't begin with 0"`
	Text          text.Options  `yaml:"text"`
	DefaultSender string        `yaml:"sender" doc:"the source address of messages whose sender has no number; empty: they are refused"`
	Source        Numbering     `yaml:"source" doc:"TON and NPI of source addresses that are numbers"`
	Destination   Numbering     `yaml:"destination" doc:"TON and NPI of destination addresses"`
	ServiceType   string        `yaml:"service_type" doc:"service_type of what goes out, at most 5 characters"`
	Receipts      string        `yaml:"receipts" doc:"which delivery receipts are asked for: none, final, or failure (final where the sender wants to be told of a delivery)"`
	ReceiptIDs    string        `yaml:"receipt_ids" doc:"how a receipt writes the number that the response named in hexadecimal or decimal: same (as there), decimal (the response's was hexadecimal), hex (the response's was decimal)"`
	Validity      string        `yaml:"validity" doc:"how the end of a message's life is said: relative, absolute, or none"`
	PartsWait     time.Duration `yaml:"parts_wait" doc:"how long after the first part of a long message the last one may come"`

	// Version is the peer's interface_version: 0x33, 0x34 or 0x50. 0 is 0x34.
	Version uint8 `yaml:"-"`
}

// Numbering sets the type of number and the numbering plan of addresses
// (SMPP 3.4 §5.2.5, §5.2.6).
type Numbering struct {
	TON int `yaml:"ton" doc:"type of number, 0 to 6; -1: as the address is written"`
	NPI int `yaml:"npi" doc:"numbering plan, 0 to 18; -1: as the address is written"`
}

// Which receipts are asked for.
const (
	ReceiptsNone    = "none"
	ReceiptsFinal   = "final"   // delivered or failed
	ReceiptsFailure = "failure" // only failed
)

// How the peer's receipts write the names of messages.
const (
	ReceiptIDsSame    = "same"
	ReceiptIDsHex     = "hex"
	ReceiptIDsDecimal = "decimal"
)

// How the end of a message's life is said.
const (
	ValidityRelative = "relative"
	ValidityAbsolute = "absolute"
	ValidityNone     = "none"
)

// Versions of the protocol, as interface_version (SMPP 3.4 §5.2.4).
const (
	Version33 = 0x33
	Version34 = 0x34
	Version50 = 0x50
)

// Bounds of PartsWait, those of plugin.Part.
const (
	minPartsWait = time.Second
	maxPartsWait = 24 * time.Hour
)

// Defaults returns the dialect of a peer of whom nothing else is known: SMPP
// 3.4, GSM 7-bit or UCS-2, message_payload over 254 octets, receipts of every
// outcome.
func Defaults() Dialect {
	return Dialect{
		Domain: "sms.example.com",
		Plus:   true,
		Text: text.Options{
			Alphabets:   []plugin.Alphabet{plugin.GSM7, plugin.UCS2},
			Long:        text.LongPayload,
			PayloadOver: text.MaxShort,
		},
		Source:      Numbering{TON: -1, NPI: -1},
		Destination: Numbering{TON: -1, NPI: -1},
		Receipts:    ReceiptsFinal,
		ReceiptIDs:  ReceiptIDsSame,
		Validity:    ValidityRelative,
		PartsWait:   10 * time.Minute,
		Version:     Version34,
	}
}

// Validate names every key that is wrong, in *plugin.InvalidKey joined; prefix
// stands before each key: "dialect.".
func (d *Dialect) Validate(prefix string) error {
	p := problems{prefix: prefix}
	p.expect(isDomain.MatchString(d.Domain), "domain", "a domain in lower case, such as sms.example.com")
	d.checkText(&p)
	p.expect(d.DefaultSender == "" || isSender(d.DefaultSender), "sender", "a telephone number, or a word of at most 11 characters")
	d.Source.check(&p, "source")
	d.Destination.check(&p, "destination")
	p.expect(isServiceType.MatchString(d.ServiceType), "service_type", "at most 5 letters and digits")
	p.expectOneOf(d.Receipts, "receipts", ReceiptsNone, ReceiptsFinal, ReceiptsFailure)
	p.expectOneOf(d.ReceiptIDs, "receipt_ids", ReceiptIDsSame, ReceiptIDsHex, ReceiptIDsDecimal)
	p.expectOneOf(d.Validity, "validity", ValidityRelative, ValidityAbsolute, ValidityNone)
	p.expect(d.PartsWait >= minPartsWait && d.PartsWait <= maxPartsWait, "parts_wait", "between 1s and 24h")
	return errors.Join(p.found...)
}

func (d *Dialect) checkText(p *problems) {
	o := d.Text
	p.expect(len(o.Alphabets) > 0, "text.alphabets", "at least one of gsm7, gsm7-national, latin1, ucs2")
	known := []plugin.Alphabet{plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2}
	for i, alphabet := range o.Alphabets {
		once := !slices.Contains(o.Alphabets[:i], alphabet)
		p.expect(once && slices.Contains(known, alphabet), fmt.Sprintf("text.alphabets[%d]", i), "gsm7, gsm7-national, latin1 or ucs2, each once")
	}
	for i, language := range o.National {
		once := !slices.Contains(o.National[:i], language)
		p.expect(once && text.IsLanguage(language), fmt.Sprintf("text.national[%d]", i), "the name of a language that has tables, such as turkish, each once")
	}
	national := slices.Contains(o.Alphabets, plugin.GSM7National)
	p.expect(!national || len(o.National) > 0, "text.national", "at least one language, since text.alphabets has gsm7-national")
	p.expectOneOf(o.Long, "text.long", text.LongPayload, text.LongUDH, text.LongUDH16, text.LongSAR)
	p.expect(o.PayloadOver >= 0 && o.PayloadOver <= text.MaxShort, "text.payload_over", "between 0 and 254")
}

func (n Numbering) check(p *problems, key string) {
	p.expect(n.TON >= -1 && n.TON <= 6, key+".ton", "between 0 and 6, or -1")
	p.expect(n.NPI >= -1 && n.NPI <= 18, key+".npi", "between 0 and 18, or -1")
}

var (
	isDomain      = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	isServiceType = regexp.MustCompile(`^[A-Za-z0-9]{0,5}$`)
)

// problems are keys that are wrong.
type problems struct {
	prefix string
	found  []error
}

func (p *problems) expect(ok bool, key, expected string) {
	if !ok {
		p.found = append(p.found, &plugin.InvalidKey{Key: p.prefix + key, Expected: expected})
	}
}

func (p *problems) expectOneOf(value, key string, words ...string) {
	expected := words[0]
	for i, word := range words[1:] {
		if i == len(words)-2 {
			expected += " or " + word
			continue
		}
		expected += ", " + word
	}
	p.expect(slices.Contains(words, value), key, expected)
}
