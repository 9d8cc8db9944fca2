package content

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// decodeText makes UTF-8 of a text in UTF-8, US-ASCII, ISO 8859-1 or -15,
// Windows-1252 or UTF-16. It returns false for other charsets, and for what
// isn't proper in its charset.
func decodeText(charset string, body []byte) (string, bool) {
	switch charset {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		if !utf8.Valid(body) {
			return "", false
		}
		return string(body), true
	case "iso-8859-1", "latin1":
		return singleOctets(body, latin1)
	case "iso-8859-15", "latin-9":
		return singleOctets(body, latin9)
	case "windows-1252", "cp1252":
		return singleOctets(body, windows1252)
	case "utf-16":
		return markedUTF16(body)
	case "utf-16be":
		return decodeUTF16(body, binary.BigEndian)
	case "utf-16le":
		return decodeUTF16(body, binary.LittleEndian)
	}
	return "", false
}

func singleOctets(body []byte, character func(byte) rune) (string, bool) {
	text := make([]byte, 0, len(body)+len(body)/8)
	for _, octet := range body {
		r := character(octet)
		if r == utf8.RuneError {
			return "", false
		}
		text = utf8.AppendRune(text, r)
	}
	return string(text), true
}

// latin1 is ISO 8859-1: its octets are Unicode's first 256 characters.
func latin1(octet byte) rune { return rune(octet) }

// latin9 is ISO 8859-15: ISO 8859-1 with eight others.
func latin9(octet byte) rune {
	switch octet {
	case 0xa4:
		return '€'
	case 0xa6:
		return 'Š'
	case 0xa8:
		return 'š'
	case 0xb4:
		return 'Ž'
	case 0xb8:
		return 'ž'
	case 0xbc:
		return 'Œ'
	case 0xbd:
		return 'œ'
	case 0xbe:
		return 'Ÿ'
	}
	return rune(octet)
}

// windows1252 is ISO 8859-1 with characters where that has controls.
func windows1252(octet byte) rune {
	if octet < 0x80 || octet > 0x9f {
		return rune(octet)
	}
	return windowsOnly[octet-0x80]
}

// windowsOnly is 0x80 to 0x9f; five of them are nothing.
var windowsOnly = [32]rune{
	'€', utf8.RuneError, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', utf8.RuneError, 'Ž', utf8.RuneError,
	utf8.RuneError, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', utf8.RuneError, 'ž', 'Ÿ',
}

// markedUTF16 reads what begins with a byte order mark; without one it is
// big-endian (RFC 2781 §4.3).
func markedUTF16(body []byte) (string, bool) {
	if len(body) >= 2 && body[0] == 0xff && body[1] == 0xfe {
		return decodeUTF16(body[2:], binary.LittleEndian)
	}
	if len(body) >= 2 && body[0] == 0xfe && body[1] == 0xff {
		body = body[2:]
	}
	return decodeUTF16(body, binary.BigEndian)
}

func decodeUTF16(body []byte, order binary.ByteOrder) (string, bool) {
	if len(body)%2 != 0 {
		return "", false
	}
	text := make([]byte, 0, len(body))
	for ; len(body) > 0; body = body[2:] {
		r := rune(order.Uint16(body))
		if utf16.IsSurrogate(r) {
			if body = body[2:]; len(body) == 0 {
				return "", false
			}
			if r = utf16.DecodeRune(r, rune(order.Uint16(body))); r == utf8.RuneError {
				return "", false
			}
		}
		text = utf8.AppendRune(text, r)
	}
	return string(text), true
}
