package content

import "unicode/utf8"

// Mend makes proper UTF-8 of a text that was joined from parts. A surrogate pair
// that was cut in two, each half written as three octets (WTF-8), becomes the
// character that it stands for; a half alone, and whatever else isn't UTF-8,
// becomes U+FFFD. Text that is proper is returned as it is.
func Mend(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	mended := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, size := decodeWTF8(text)
		mended = utf8.AppendRune(mended, r)
		text = text[size:]
	}
	return mended
}

// decodeWTF8 reads one character, or one fault, and says how many octets it takes.
func decodeWTF8(b []byte) (rune, int) {
	high, ok := surrogate(b)
	if !ok {
		return utf8.DecodeRune(b)
	}
	low, ok := surrogate(b[surrogateSize:])
	if !ok || high >= firstLow || low < firstLow {
		return utf8.RuneError, surrogateSize
	}
	return (high-firstHigh)<<10 + (low - firstLow) + 0x10000, 2 * surrogateSize
}

// The halves of surrogate pairs (RFC 2781 §2.1): those that come first are less
// than firstLow.
const (
	firstHigh     = 0xd800
	firstLow      = 0xdc00
	surrogateSize = 3 // octets of a half
)

// surrogate reads a half that is written as if it were a character.
func surrogate(b []byte) (rune, bool) {
	if len(b) < surrogateSize || b[0] != 0xed || b[1] < 0xa0 || b[1] > 0xbf || b[2]&0xc0 != 0x80 {
		return 0, false
	}
	return firstHigh&0xf000 | rune(b[1]&0x3f)<<6 | rune(b[2]&0x3f), true
}
