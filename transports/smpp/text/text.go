// Package text writes text as phones read it and reads what they wrote: the
// alphabets of 3GPP TS 23.038 and of SMPP 3.4 §5.2.19, long texts in parts with
// the user data header of 3GPP TS 23.040 §9.2.3.24, and the times of SMPP 3.4
// §7.1.1. It is pure: it knows no PDU, no message and no session.
package text

import (
	"errors"
	"fmt"

	"github.com/imgate/imgate/engine/plugin"
)

// Alphabet is how characters are written in octets.
type Alphabet uint8

// The alphabets.
const (
	GSM7         Alphabet = iota // the default alphabet and its extension table, a septet in each octet (3GPP TS 23.038 §6.2.1)
	GSM7National                 // with the tables of a national language (3GPP TS 23.038 §A)
	Latin1                       // ISO 8859-1
	UCS2                         // UTF-16, the greater octet first
	Binary                       // no text
	ASCII                        // IA5
	Cyrillic                     // ISO 8859-5; only read
	Hebrew                       // ISO 8859-8; only read
	ShiftJIS                     // JIS X 0208 as Shift JIS; only read
	ISO2022JP                    // ISO 2022-JP; only read
	EUCKR                        // KS C 5601 as EUC-KR; only read
)

// Names of what a peer's default alphabet may be.
const (
	nameGSM7   = "gsm7"
	nameLatin1 = "latin1"
	nameASCII  = "ascii"
)

// UnmarshalText reads the name of a peer's default alphabet: gsm7, latin1 or
// ascii.
func (a *Alphabet) UnmarshalText(name []byte) error {
	switch string(name) {
	case nameGSM7:
		*a = GSM7
	case nameLatin1:
		*a = Latin1
	case nameASCII:
		*a = ASCII
	default:
		return errors.New("expected gsm7, latin1 or ascii")
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (a Alphabet) MarshalText() ([]byte, error) {
	switch a {
	case GSM7:
		return []byte(nameGSM7), nil
	case Latin1:
		return []byte(nameLatin1), nil
	case ASCII:
		return []byte(nameASCII), nil
	}
	return nil, fmt.Errorf("alphabet %d can't be a default alphabet", a)
}

// How long texts go.
const (
	LongPayload = "payload" // whole: in message_payload if over Options.PayloadOver
	LongUDH     = "udh"     // in parts, with an 8-bit reference in the user data header
	LongUDH16   = "udh16"   // in parts, with a 16-bit reference
	LongSAR     = "sar"     // in parts that TLVs tell apart
)

// MaxParts is how many parts a message may have: they are numbered in an octet.
const MaxParts = 255

// MaxShort is how many octets short_message holds (SMPP 3.4 §5.2.22).
const MaxShort = 254

// Options say how texts are written for one peer.
type Options struct {
	Alphabets     []plugin.Alphabet `yaml:"alphabets" doc:"the alphabets that a text may be written in, unless a policy says: gsm7, gsm7-national, latin1, ucs2; the first one that has all its characters is taken"`
	Transliterate bool              `yaml:"transliterate" doc:"whether characters that an alphabet lacks may be replaced by like ones, unless a policy says"`
	National      []string          `yaml:"national" doc:"the languages whose tables gsm7-national may use: turkish, spanish, portuguese, bengali, gujarati, hindi, kannada, malayalam, oriya, punjabi, tamil, telugu, urdu"`
	Default       Alphabet          `yaml:"default_alphabet" doc:"what data_coding 0 means for the peer: gsm7, latin1 or ascii"`
	Long          string            `yaml:"long" doc:"how long texts go: payload (whole, in message_payload), udh (in parts, with an 8-bit reference), udh16 (with a 16-bit reference), sar (in parts that TLVs tell apart)"`
	PayloadOver   int               `yaml:"payload_over" doc:"with payload: octets of a text that still goes in short_message, 0 to 254"`

	// Elements are information elements of the user data header, other than those
	// of parts and languages, that go in front of each part. See Decoded.UDH.
	Elements []byte `yaml:"-"`
	// Reference names a message that goes in parts: the same for all of them, and
	// if possible another for the next. It is called once for each such message.
	// Nil: 0.
	Reference func() uint16 `yaml:"-"`
}

// Segment is what goes in one PDU.
type Segment struct {
	Data       []byte // with its user data header in front, if UDHI
	UDHI       bool   // for esm_class
	DataCoding uint8
	Payload    bool // goes in message_payload

	// The part that it is; Total is 0 if the text goes whole.
	Reference     uint16
	Total, Number uint8
	SAR           bool // TLVs say so, and not the user data header
}

// Errors of Encode and EncodeBinary.
var (
	ErrAlphabet = errors.New("no alphabet has all the characters")
	ErrTooLong  = errors.New("longer than 255 parts")
	ErrElements = errors.New("the user data header leaves no room")
)

// Concat says which part of a message a part is (3GPP TS 23.040 §9.2.3.24.1).
type Concat struct {
	Reference     uint16
	Total, Number uint8 // Total is 2 at least, Number 1 to Total
}

// Decoded is what was in one PDU.
type Decoded struct {
	// Text is UTF-8, but for halves of a surrogate pair at its beginning and end,
	// whose other half another part may have: these are three octets (WTF-8).
	Text   string
	Binary bool
	Data   []byte // of Binary, without the user data header
	// UDH is the information elements other than those of parts and languages.
	UDH    []byte
	Concat *Concat // nil: it is whole
}

// Errors of Decode.
var (
	ErrDataCoding = errors.New("data_coding: not one that we read")
	ErrCharacters = errors.New("octets that stand for no character")
	ErrHeader     = errors.New("user data header: not one (3GPP TS 23.040 §9.2.3.24)")
)
