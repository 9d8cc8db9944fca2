package text

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"unicode/utf8"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct {
		data   string
		coding uint8
		def    Alphabet
		want   string
		err    error
	}{
		"GSM":                         {"\x00 \x1b\x65", 0, GSM7, "@ €", nil},
		"an escape of nothing":        {"\x1b\x41", 0, GSM7, "A", nil},
		"two escapes":                 {"a\x1b\x1bb", 0, GSM7, "a b", nil},
		"an escape at the end":        {"a\x1b", 0, GSM7, "a ", nil},
		"eight bits":                  {"caf\xe9", 0, GSM7, "", ErrCharacters},
		"eight bits, escaped":         {"\x1b\xe9", 0, GSM7, "", ErrCharacters},
		"the peer's is Latin 1":       {"caf\xe9", 0, Latin1, "café", nil},
		"the peer's is ASCII":         {"a@b", 0, ASCII, "a@b", nil},
		"that isn't ASCII":            {"\xe9", 0, ASCII, "", ErrCharacters},
		"ASCII":                       {"a@b`", 1, GSM7, "a@b`", nil},
		"Latin 1":                     {"caf\xe9", 3, GSM7, "café", nil},
		"Cyrillic":                    {"\xbf\xe0\xd8", 6, GSM7, "При", nil},
		"Hebrew":                      {"\xf9\xec", 7, GSM7, "של", nil},
		"not Hebrew":                  {"\xbf", 7, GSM7, "", ErrCharacters},
		"UCS-2":                       {"\x04\x1f\xd8\x3d\xde\x00", 8, GSM7, "П😀", nil},
		"half a unit":                 {"\x04\x1f\x04", 8, GSM7, "", ErrCharacters},
		"a high half at the end":      {"\x00a\xd8\x3d", 8, GSM7, "a\xed\xa0\xbd", nil},
		"a low half at the beginning": {"\xde\x00\x00a", 8, GSM7, "\xed\xb8\x80a", nil},
		"halves in the middle":        {"\x00a\xde\x00\xd8\x3d\x00a", 8, GSM7, "a\ufffd\ufffda", nil},
		"two high halves at the end":  {"\xd8\x3d\xd8\x3d", 8, GSM7, "\ufffd\xed\xa0\xbd", nil},
		"Shift JIS":                   {"\x83\x65\x83\x58\x83\x67", 5, GSM7, "テスト", nil},
		"ISO 2022-JP":                 {"\x1b$B%F%9%H\x1b(B", 10, GSM7, "テスト", nil},
		"EUC-KR":                      {"\xc7\xd1\xb1\xdb", 14, GSM7, "한글", nil},
		"half of EUC-KR":              {"\xc7\xd1\xb1", 14, GSM7, "", ErrCharacters},
		"pictograms":                  {"x", 9, GSM7, "", ErrDataCoding},
		"JIS X 0212":                  {"x", 13, GSM7, "", ErrDataCoding},
		"flash":                       {"\x00", 0x10, GSM7, "@", nil},
		"flash, in UCS-2":             {"\x00a", 0x18, GSM7, "a", nil},
		"reserved":                    {"a", 0x1c, GSM7, "", ErrDataCoding},
		"compressed":                  {"a", 0x20, GSM7, "", ErrDataCoding},
		"to be deleted":               {"\x00a", 0x48, GSM7, "a", nil},
		"reserved group":              {"a", 0x80, GSM7, "", ErrDataCoding},
		"a message waits":             {"\x00", 0xc8, GSM7, "@", nil},
		"it waits and is kept":        {"\x00", 0xd8, GSM7, "@", nil},
		"it waits, in UCS-2":          {"\x00a", 0xe8, GSM7, "a", nil},
		"class 1":                     {"\x00", 0xf1, GSM7, "@", nil},
		"class 1, the peer's":         {"@", 0xf1, Latin1, "@", nil},
		"nothing":                     {"", 0, GSM7, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Decode([]byte(c.data), c.coding, false, c.def)
			if !errors.Is(err, c.err) || d.Text != c.want || d.Binary || d.Concat != nil || d.UDH != nil {
				t.Errorf("%q %v, want %q %v", d.Text, err, c.want, c.err)
			}
		})
	}
}

func TestDecodeBinary(t *testing.T) {
	for _, coding := range []uint8{2, 4, 0x14, 0x17, 0x44, 0xf4, 0xf7} {
		d, err := Decode([]byte("\x00\xff"), coding, false, GSM7)
		if err != nil || !d.Binary || string(d.Data) != "\x00\xff" || d.Text != "" || !IsBinary(coding) {
			t.Errorf("%#x: %+v, %v", coding, d, err)
		}
	}
	for _, coding := range []uint8{0, 1, 3, 8, 9, 0x10, 0x80, 0xf0} {
		if IsBinary(coding) {
			t.Errorf("%#x is binary", coding)
		}
	}
}

func TestDecodeHeader(t *testing.T) {
	for name, c := range map[string]struct {
		header string // in hexadecimal
		concat *Concat
		udh    string
		text   string // of 0x07, which is ì in the default alphabet
		ok     bool
	}{
		"empty":                       {"00", nil, "", "ì", true},
		"a part":                      {"050003010302", &Concat{1, 3, 2}, "", "ì", true},
		"16 bits":                     {"060804cafe0302", &Concat{0xcafe, 3, 2}, "", "ì", true},
		"ports":                       {"0605040b8423f0", nil, "05040b8423f0", "ì", true},
		"ports and a part":            {"0b05040b8423f00003ff0201", &Concat{0xff, 2, 1}, "05040b8423f0", "ì", true},
		"the last one counts":         {"0a00030103020003020303", &Concat{2, 3, 3}, "", "ì", true},
		"the only one":                {"050003010101", nil, "", "ì", true},
		"Turkish":                     {"03250101", nil, "", "ı", true},
		"Turkish, and a part":         {"080003010202250101", &Concat{1, 2, 2}, "", "ı", true},
		"a language that isn't":       {"0325017f", nil, "", "ì", true},
		"both tables":                 {"06240101250101", nil, "", "ı", true},
		"part 0":                      {"050003010300", nil, "", "ì", true},
		"part 4 of 3":                 {"050003010304", nil, "", "ì", true},
		"part 1 of 0":                 {"050003010001", nil, "", "ì", true},
		"part 0 of 1":                 {"050003010100", nil, "", "ì", true},
		"a short part":                {"0400020103", nil, "", "", false},
		"a long part":                 {"06000401030201", nil, "", "", false},
		"a short part of 16 bits":     {"050803010302", nil, "", "", false},
		"an element that isn't whole": {"03000301", nil, "", "", false},
		"a length that isn't there":   {"0100", nil, "", "", false},
		"no language":                 {"022500", nil, "", "", false},
		"two languages":               {"0424020101", nil, "", "", false},
		"longer than all":             {"20", nil, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Decode(append(unhex(t, c.header), 0x07), 0, true, GSM7)
			if !c.ok {
				if !errors.Is(err, ErrHeader) {
					t.Errorf("%+v, %v", d, err)
				}
				return
			}
			if err != nil || d.Text != c.text || hex.EncodeToString(d.UDH) != c.udh || (d.Concat == nil) != (c.concat == nil) {
				t.Fatalf("%+v, %v", d, err)
			}
			if c.concat != nil && *d.Concat != *c.concat {
				t.Errorf("%+v, want %+v", d.Concat, c.concat)
			}
		})
	}
	if _, err := Decode(nil, 0, true, GSM7); !errors.Is(err, ErrHeader) {
		t.Error("no header at all:", err)
	}
}

// TestNationalCharacters has some that the library has wrong, and that two tables
// write in different ways.
func TestNationalCharacters(t *testing.T) {
	for data, want := range map[string]string{
		"03240103" + "1b1f1e": "Êß", // Portuguese extension table
		"03250103" + "1e1b14": "Ê^", // Portuguese basic table
		"03250106" + "000102": "ँंः",
		"03240106" + "1b1c4a": "०J",
		"03240101" + "1b5373": "Şs",
		"03250101" + "1c1b53": "ŞS",
		"03240102" + "1b0d1b": "\r ", // a return behind an escape stands for nothing yet
	} {
		if d, err := Decode(unhex(t, data), 0, true, GSM7); err != nil || d.Text != want {
			t.Errorf("%s is %q, %v; want %q", data, d.Text, err, want)
		}
	}
}

func TestValidElements(t *testing.T) {
	for elements, want := range map[string]bool{
		"": true, "05040b8423f0": true, "0504": false, "0003010201": false, "240101": false, "7000": true, "70": false,
	} {
		if got := ValidElements(unhex(t, elements)); got != want {
			t.Errorf("%s: %t", elements, got)
		}
	}
	if ValidElements(append([]byte{0x70, 200}, make([]byte, 200)...)) {
		t.Error("too long")
	}
}

func TestAlphabetNames(t *testing.T) {
	for _, name := range []string{"gsm7", "latin1", "ascii"} {
		var a Alphabet
		if err := a.UnmarshalText([]byte(name)); err != nil {
			t.Error(err)
		}
		if text, err := a.MarshalText(); err != nil || string(text) != name {
			t.Errorf("%s becomes %s, %v", name, text, err)
		}
	}
	var a Alphabet
	if a.UnmarshalText([]byte("ucs2")) == nil {
		t.Error("ucs2 is no default alphabet")
	}
	if _, err := UCS2.MarshalText(); err == nil {
		t.Error("UCS2 is no default alphabet")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("hello"), uint8(0), false, uint8(0))
	f.Add([]byte("\x05\x00\x03\x01\x02\x01hello\x1b\x65"), uint8(0), true, uint8(0))
	f.Add([]byte("\x08\x00\x03\x01\x02\x01\x25\x01\x01\x07"), uint8(0xf1), true, uint8(2))
	f.Add([]byte("\xd8\x3d\xde\x00"), uint8(8), false, uint8(5))
	f.Add([]byte("\x1b$B%F%9%H\x1b(B"), uint8(10), false, uint8(0))
	f.Add([]byte("\x06\x05\x04\x0b\x84\x23\xf0\xff"), uint8(4), true, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, coding uint8, udhi bool, def uint8) {
		d, err := Decode(data, coding, udhi, []Alphabet{GSM7, Latin1, ASCII}[def%3])
		if err != nil {
			return
		}
		checkDecoded(t, d)
		if d.Concat != nil && (d.Concat.Total < 2 || d.Concat.Number == 0 || d.Concat.Number > d.Concat.Total) {
			t.Errorf("%+v", d.Concat)
		}
	})
}

// checkDecoded: a text is UTF-8, but for halves of surrogate pairs at its ends.
func checkDecoded(t *testing.T, d Decoded) {
	t.Helper()
	text := []byte(d.Text)
	if isHalf(text, 0xb0) {
		text = text[3:]
	}
	if n := len(text); n >= 3 && isHalf(text[n-3:], 0xa0) {
		text = text[:n-3]
	}
	if !utf8.Valid(text) || d.Binary && d.Text != "" || !d.Binary && d.Data != nil {
		t.Errorf("%q", d.Text)
	}
}

func isHalf(text []byte, kind byte) bool {
	return len(text) >= 3 && text[0] == 0xed && text[1]&0xf0 == kind
}

// FuzzHeader: what was read can be written, and reads the same.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x05\x00\x03\x01\x02\x01"))
	f.Add([]byte("\x0b\x05\x04\x0b\x84\x23\xf0\x00\x03\xff\x02\x01"))
	f.Add([]byte("\x06\x24\x01\x01\x25\x01\x01rest"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, rest, err := parseHeader(data)
		if err != nil {
			return
		}
		if len(rest) != len(data)-1-int(data[0]) {
			t.Errorf("%d octets are left of %x", len(rest), data)
		}
		again, _, err := parseHeader(appendHeader(nil, nil, h.others))
		if err != nil || !bytes.Equal(again.others, h.others) || again.concat != nil {
			t.Errorf("%x reads as %+v, %v", h.others, again, err)
		}
	})
}
