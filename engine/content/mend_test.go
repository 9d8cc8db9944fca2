package content

import (
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

func TestMend(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"grüß Gott 😀":                          "grüß Gott 😀",
		"\xed\xa0\xbd\xed\xb8\x80":             "😀",
		"a\xed\xa0\xbd\xed\xb8\x80b":           "a😀b",
		"\xed\xa0\xbd":                         "\uFFFD",
		"\xed\xb8\x80":                         "\uFFFD",
		"\xed\xb8\x80\xed\xa0\xbd":             "\uFFFD\uFFFD",
		"\xed\xa0\xbd\xed\xa0\xbd\xed\xb8\x80": "\uFFFD😀",
		"\xed\xa0\xbda\xed\xb8\x80":            "\uFFFDa\uFFFD",
		"\xed\xa0\x80\xed\xb0\x80":             "\U00010000",
		"\xed\xaf\xbf\xed\xbf\xbf":             "\U0010FFFF",
		"\xed\x9f\xbf":                         "\ud7ff",
		"\xed\xa0":                             "\uFFFD\uFFFD",
		"a\xff\xfeb":                           "a\uFFFD\uFFFDb",
		"\xc0\xafü":                            "\uFFFD\uFFFDü",
	} {
		if got := string(Mend([]byte(in))); got != want {
			t.Errorf("Mend(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzMend: what comes out is proper UTF-8, and stays as it is; a text of UTF-16
// whose halves were each written as three octets is that text.
func FuzzMend(f *testing.F) {
	for _, seed := range []string{"", "a😀", "\xed\xa0\xbd\xed\xb8\x80", "\xed\xa0", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := Mend(b)
		if !utf8.Valid(got) || string(Mend(got)) != string(got) {
			t.Errorf("Mend(%q) = %q", b, got)
		}
		var units []uint16
		var halves []byte
		for i := 0; i+1 < len(b); i += 2 {
			unit := uint16(b[i])<<8 | uint16(b[i+1])
			units = append(units, unit)
			if utf16.IsSurrogate(rune(unit)) {
				halves = append(halves, 0xed, 0x80|byte(unit>>6&0x3f), 0x80|byte(unit&0x3f))
			} else {
				halves = utf8.AppendRune(halves, rune(unit))
			}
		}
		if got, want := string(Mend(halves)), string(utf16.Decode(units)); got != want {
			t.Errorf("Mend(%q) = %q, want %q", halves, got, want)
		}
	})
}
