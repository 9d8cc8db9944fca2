package text

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
)

// alphabets are those of data_coding up to 14 (SMPP 3.4 §5.2.19) that we read.
// Pictograms (9) and JIS X 0212 (13) have no agreed form.
var alphabets = map[uint8]Alphabet{
	1: ASCII, 2: Binary, 3: Latin1, 4: Binary, 5: ShiftJIS, 6: Cyrillic, 7: Hebrew, 8: UCS2, 10: ISO2022JP, 14: EUCKR,
}

// alphabetOf returns the alphabet of a data_coding; false: we don't read it. Those
// that SMPP leaves to GSM are read as such (3GPP TS 23.038 §4), and where that
// says the default alphabet, the peer's is meant.
func alphabetOf(coding uint8, def Alphabet) (Alphabet, bool) {
	if coding == codingDefault {
		return def, true
	}
	if coding < 0x10 {
		alphabet, ok := alphabets[coding]
		return alphabet, ok
	}
	switch coding >> 4 {
	case 0x1, 0x4, 0x5: // not compressed; with a class, or to be deleted
		return generalAlphabet(coding, def)
	case 0xc, 0xd: // a message waits
		return def, true
	case 0xe: // the same
		return UCS2, true
	case 0xf: // with a class
		if coding&4 != 0 {
			return Binary, true
		}
		return def, true
	}
	return 0, false
}

func generalAlphabet(coding uint8, def Alphabet) (Alphabet, bool) {
	switch coding >> 2 & 3 {
	case 0:
		return def, true
	case 1:
		return Binary, true
	case 2:
		return UCS2, true
	}
	return 0, false
}

// Decode reads what was in one PDU. def is what the peer's default alphabet is:
// GSM7, Latin1 or ASCII. Errors: ErrDataCoding, ErrCharacters, ErrHeader. What
// it returns may share memory with data.
func Decode(data []byte, coding uint8, udhi bool, def Alphabet) (Decoded, error) {
	alphabet, ok := alphabetOf(coding, def)
	if !ok {
		return Decoded{}, ErrDataCoding
	}
	var h header
	if udhi {
		var err error
		if h, data, err = parseHeader(data); err != nil {
			return Decoded{}, err
		}
	}
	d := Decoded{UDH: h.others, Concat: h.concat}
	if alphabet == Binary {
		d.Binary, d.Data = true, data
		return d, nil
	}
	var err error
	d.Text, err = read(data, alphabet, tableOf(h.locking, h.single))
	return d, err
}

func read(data []byte, alphabet Alphabet, t *table) (string, error) {
	switch alphabet {
	case GSM7:
		return t.read(data)
	case ASCII:
		return readASCII(data)
	case Latin1:
		return readLatin1(data), nil
	case UCS2:
		return readUCS2(data)
	}
	return readOther(data, alphabet)
}

func readASCII(data []byte) (string, error) {
	for _, octet := range data {
		if octet >= utf8.RuneSelf {
			return "", ErrCharacters
		}
	}
	return string(data), nil
}

func readLatin1(data []byte) string {
	text := make([]byte, 0, len(data)+len(data)/8)
	for _, octet := range data {
		text = appendRune(text, rune(octet))
	}
	return string(text)
}

// readUCS2 keeps halves of surrogate pairs at both ends, whose other halves may
// be in other parts.
func readUCS2(data []byte) (string, error) {
	if len(data)%2 != 0 {
		return "", ErrCharacters
	}
	text := make([]byte, 0, len(data)*3/2)
	for at := 0; at < len(data); at += 2 {
		r := unit(data[at:])
		switch {
		case !utf16.IsSurrogate(r):
			text = appendRune(text, r)
		case isHigh(r) && at+2 < len(data) && isLow(unit(data[at+2:])):
			text = utf8.AppendRune(text, utf16.DecodeRune(r, unit(data[at+2:])))
			at += 2
		case isLow(r) && at == 0, isHigh(r) && at+2 == len(data):
			text = append(text, 0xe0|byte(r>>12), 0x80|byte(r>>6&0x3f), 0x80|byte(r&0x3f))
		default:
			text = utf8.AppendRune(text, utf8.RuneError)
		}
	}
	return string(text), nil
}

// others are the alphabets that are only read.
var others = map[Alphabet]encoding.Encoding{
	Cyrillic: charmap.ISO8859_5, Hebrew: charmap.ISO8859_8,
	ShiftJIS: japanese.ShiftJIS, ISO2022JP: japanese.ISO2022JP, EUCKR: korean.EUCKR,
}

func readOther(data []byte, alphabet Alphabet) (string, error) {
	text, err := others[alphabet].NewDecoder().Bytes(data)
	if err != nil || strings.ContainsRune(string(text), utf8.RuneError) {
		return "", ErrCharacters
	}
	return string(text), nil
}
