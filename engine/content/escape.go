package content

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// appendEscaped writes a value with the escapes of RFC 3862 §2.3.
func appendEscaped(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '\\' || r == '"':
			b = append(b, '\\', byte(r))
		case isControl(r):
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[r>>4&0xf], digits[r&0xf])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// unescape undoes the escapes of RFC 3862 §2.3. What isn't one stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for s != "" {
		r, size := unescapeOne(s)
		b = utf8.AppendRune(b, r)
		s = s[size:]
	}
	return string(b)
}

// unescapeOne reads a character, and says how many octets it takes.
func unescapeOne(s string) (rune, int) {
	if s[0] != '\\' || len(s) < 2 {
		return utf8.DecodeRuneInString(s)
	}
	switch s[1] {
	case 'b':
		return '\b', 2
	case 't':
		return '\t', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case '"', '\'', '\\':
		return rune(s[1]), 2
	case 'u':
		return unescapeUnit(s)
	}
	return '\\', 1
}

// unescapeUnit reads what begins with \u: a character, or two units of UTF-16 that
// are one.
func unescapeUnit(s string) (rune, int) {
	r, ok := unit(s)
	if !ok {
		return '\\', 1
	}
	if low, ok := unit(s[6:]); ok && utf16.IsSurrogate(r) {
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return r, 6
}

func unit(s string) (rune, bool) {
	if len(s) < 6 || s[:2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil
}
