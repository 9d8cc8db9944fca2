package text

import (
	"unicode/utf16"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/plugin"
)

// data_coding of what we write (SMPP 3.4 §5.2.19).
const (
	codingDefault = 0
	codingLatin1  = 3
	codingBinary  = 4
	codingUCS2    = 8
)

// octetsAlone is how many octets of user data an SMS has (3GPP TS 23.040 §9.2.3.16).
const octetsAlone = 140

// form is a way to write text as octets.
type form interface {
	// put appends a character; false: there is none such.
	put(dst []byte, r rune) ([]byte, bool)
	// next returns the character at the beginning of what put wrote, how many
	// octets it has, and how much of an SMS it takes.
	next(data []byte) (r rune, octets, width int)
	// width is how much of an SMS all that put wrote takes.
	width(data []byte) int
	// room is how much an SMS holds besides a header of that many octets.
	room(header int) int
	// coding is its data_coding.
	coding() uint8
	// elements are the information elements that announce it.
	elements() []byte
}

// septets is a GSM 7-bit alphabet, a septet in each octet.
type septets struct{ *table }

func (f septets) put(dst []byte, r rune) ([]byte, bool) {
	c := f.code(r)
	switch {
	case c == noCode:
		return dst, false
	case c >= escaped:
		return append(dst, escape, byte(c)), true
	}
	return append(dst, byte(c)), true
}

func (f septets) next(data []byte) (rune, int, int) {
	if data[0] == escape {
		return f.extension[data[1]], 2, 2
	}
	return f.basic[data[0]], 1, 1
}

func (septets) width(data []byte) int { return len(data) }
func (septets) room(header int) int   { return roomSeptets(header) }
func (septets) coding() uint8         { return codingDefault }
func (f septets) elements() []byte    { return f.table.elements }

func roomSeptets(header int) int { return (octetsAlone - header) * 8 / 7 }

// mapped is the GSM 7-bit default alphabet for a peer that makes it out of
// another one, whose characters are Unicode's first.
type mapped struct {
	*table
	most rune // the last character of the other alphabet
}

func (f mapped) put(dst []byte, r rune) ([]byte, bool) {
	if r > f.most || f.code(r) == noCode {
		return dst, false
	}
	return append(dst, byte(r)), true
}

func (f mapped) next(data []byte) (rune, int, int) {
	r := rune(data[0])
	if f.code(r) >= escaped {
		return r, 1, 2
	}
	return r, 1, 1
}

func (f mapped) width(data []byte) int {
	total := 0
	for i := range data {
		_, _, width := f.next(data[i:])
		total += width
	}
	return total
}

func (mapped) room(header int) int { return roomSeptets(header) }
func (mapped) coding() uint8       { return codingDefault }
func (mapped) elements() []byte    { return nil }

// octets is ISO 8859-1.
type octets struct{}

func (octets) put(dst []byte, r rune) ([]byte, bool) {
	if r > 0xff {
		return dst, false
	}
	return append(dst, byte(r)), true
}

func (octets) next(data []byte) (rune, int, int) { return rune(data[0]), 1, 1 }
func (octets) width(data []byte) int             { return len(data) }
func (octets) room(header int) int               { return octetsAlone - header }
func (octets) coding() uint8                     { return codingLatin1 }
func (octets) elements() []byte                  { return nil }

// units is UTF-16.
type units struct{}

func (units) put(dst []byte, r rune) ([]byte, bool) {
	if r <= 0xffff {
		return append(dst, byte(r>>8), byte(r)), true
	}
	high, low := utf16.EncodeRune(r)
	return append(dst, byte(high>>8), byte(high), byte(low>>8), byte(low)), true
}

func (units) next(data []byte) (rune, int, int) {
	r := unit(data)
	if !isHigh(r) {
		return r, 2, 1
	}
	return utf16.DecodeRune(r, unit(data[2:])), 4, 2
}

func (units) width(data []byte) int { return len(data) / 2 }
func (units) room(header int) int   { return (octetsAlone - header) / 2 }
func (units) coding() uint8         { return codingUCS2 }
func (units) elements() []byte      { return nil }

func unit(data []byte) rune { return rune(data[0])<<8 | rune(data[1]) }
func isHigh(r rune) bool    { return r >= 0xd800 && r < 0xdc00 }
func isLow(r rune) bool     { return r >= 0xdc00 && r < 0xe000 }

// The forms of the alphabets that have but one.
var (
	formsGSM7   = [][]form{{septets{gsm7}}}
	formsLatin1 = [][]form{{octets{}}}
	formsUCS2   = [][]form{{units{}}}
	formsOver   = map[Alphabet][][]form{
		Latin1: {{mapped{gsm7, 0xff}}},
		ASCII:  {{mapped{gsm7, 0x7f}}},
	}
)

// forms returns the forms of an alphabet: those of the first list in which one has
// all characters are compared.
func (o *Options) forms(a plugin.Alphabet) [][]form {
	over, isOther := formsOver[o.Default]
	switch {
	case a == plugin.Latin1:
		return formsLatin1
	case a == plugin.UCS2:
		return formsUCS2
	case isOther: // it doesn't read septets
		return over
	case a == plugin.GSM7National && len(o.National) > 0:
		return nationalForms(o.National)
	}
	return formsGSM7
}

// nationalForms returns the forms for each language: without its tables, with
// its extension table, with its basic table, with both.
func nationalForms(names []string) [][]form {
	all := make([][]form, 0, len(names))
	for _, name := range names {
		n := uint8(languageNumber(name))
		all = append(all, []form{septets{gsm7}, septets{tableOf(0, n)}, septets{tableOf(n, 0)}, septets{tableOf(n, n)}})
	}
	return all
}

// write writes a text; false: the form lacks a character of it.
func write(dst []byte, f form, text string) ([]byte, bool) {
	ok := true
	for _, r := range text {
		if dst, ok = f.put(dst, r); !ok {
			return dst, false
		}
	}
	return dst, true
}

// appendRune is utf8.AppendRune for characters most of which are ASCII.
func appendRune(dst []byte, r rune) []byte {
	if r < utf8.RuneSelf {
		return append(dst, byte(r))
	}
	return utf8.AppendRune(dst, r)
}
