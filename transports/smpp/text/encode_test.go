package text

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/plugin"
)

var longs = []string{LongPayload, LongUDH, LongUDH16, LongSAR}

// options returns those of a long mode, with one alphabet.
func options(long string, alphabets ...plugin.Alphabet) Options {
	return Options{Alphabets: alphabets, Long: long, PayloadOver: MaxShort, Reference: func() uint16 { return 0xabcd }}
}

// joined reads segments as a peer does that joins them, and checks each.
func joined(t *testing.T, segments []Segment, o Options) string {
	t.Helper()
	var text strings.Builder
	for i, s := range segments {
		d, err := Decode(s.Data, s.DataCoding, s.UDHI, o.Default)
		if err != nil {
			t.Fatalf("segment %d of %d: %v", i+1, len(segments), err)
		}
		if !utf8.ValidString(d.Text) {
			t.Errorf("segment %d of %d has half of a character", i+1, len(segments))
		}
		checkPart(t, s, d, i+1, len(segments), o)
		text.WriteString(d.Text)
	}
	return text.String()
}

func checkPart(t *testing.T, s Segment, d Decoded, number, total int, o Options) {
	t.Helper()
	if total == 1 {
		if s.Total != 0 || s.SAR || d.Concat != nil || s.Payload != (o.Long == LongPayload && len(s.Data) > o.PayloadOver) {
			t.Errorf("a whole one is %+v", s)
		}
		return
	}
	want := Concat{Reference: 0xabcd, Total: uint8(total), Number: uint8(number)}
	if o.Long == LongUDH {
		want.Reference = 0xcd
	}
	if got := (Concat{s.Reference, s.Total, s.Number}); got != want || s.SAR != (o.Long == LongSAR) || s.Payload {
		t.Errorf("part %d of %d is %+v", number, total, s)
	}
	if o.Long != LongSAR && (d.Concat == nil || *d.Concat != want) {
		t.Errorf("part %d of %d reads as %+v", number, total, d.Concat)
	}
	if len(s.Data) > MaxShort {
		t.Errorf("part %d of %d has %d octets", number, total, len(s.Data))
	}
}

// characters are those of an alphabet, one for each way in which it is written.
func characters(a plugin.Alphabet, languages ...string) []rune {
	var all []rune
	switch a {
	case plugin.GSM7:
		all = charactersOf(gsm7)
	case plugin.GSM7National:
		for _, language := range languages {
			n := uint8(languageNumber(language))
			all = append(all, charactersOf(tableOf(n, n))...)
		}
	case plugin.Latin1:
		for r := range rune(0x100) {
			all = append(all, r)
		}
	case plugin.UCS2:
		all = []rune("aя語\u0301\u200d😀👩🏽\x00\ufeff\uffff\U0010ffff\r\n")
	}
	return all
}

func charactersOf(t *table) []rune {
	var all []rune
	for _, set := range [][128]rune{t.basic, t.extension} {
		for _, r := range set {
			if r != 0 {
				all = append(all, r)
			}
		}
	}
	return all
}

func randomText(random *rand.Rand, from []rune, length int) string {
	text := make([]rune, length)
	for i := range text {
		text[i] = from[random.IntN(len(from))]
	}
	return string(text)
}

// lengths are those around which something changes.
var lengths = []int{0, 1, 65, 66, 67, 68, 69, 70, 71, 132, 133, 134, 135, 139, 140, 141, 151, 152, 153, 154, 159, 160, 161, 253, 254, 255, 266, 306, 307, 1000}

// TestEverythingSurvives: what an alphabet has arrives as it was, however it goes.
func TestEverythingSurvives(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, a := range []plugin.Alphabet{plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2} {
		for _, long := range longs {
			t.Run(fmt.Sprint(a, " ", long), func(t *testing.T) {
				for _, language := range languages {
					o := options(long, a)
					o.National = []string{language}
					from := characters(a, language)
					for _, length := range lengths {
						survives(t, randomText(random, from, length), o)
					}
					if a != plugin.GSM7National {
						break
					}
				}
			})
		}
	}
}

func survives(t *testing.T, text string, o Options) {
	t.Helper()
	segments, err := Encode(text, o)
	if err != nil {
		t.Errorf("%q: %v", text, err)
		return
	}
	if got := joined(t, segments, o); got != text {
		t.Errorf("%q arrives as %q", text, got)
	}
}

// TestOtherDefaults: a peer whose default alphabet isn't GSM's gets its own.
func TestOtherDefaults(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		def  Alphabet
		most rune
	}{{Latin1, 0xff}, {ASCII, 0x7f}} {
		from := slices.DeleteFunc(charactersOf(gsm7), func(r rune) bool { return r > c.most })
		for _, long := range longs {
			o := options(long, plugin.GSM7)
			o.Default = c.def
			for _, length := range lengths {
				text := randomText(random, from, length)
				survives(t, text, o)
				if segments, _ := Encode(text, o); long == LongUDH && length > 0 && len(segments) != content.Segments(text) {
					t.Errorf("%q takes %d segments", text, len(segments))
				}
			}
		}
		o := options(LongUDH, plugin.GSM7National)
		o.Default, o.National = c.def, []string{"turkish"}
		if _, err := Encode("ş", o); !errors.Is(err, ErrAlphabet) {
			t.Errorf("septets go to a peer that doesn't read them: %v", err)
		}
	}
}

// TestSegmentsAgree: a text takes as many parts as the policy was told.
func TestSegmentsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	gsm, all := characters(plugin.GSM7), characters(plugin.UCS2)
	for range 3000 {
		from := gsm
		if random.IntN(2) == 0 {
			from = all
		}
		agrees(t, randomText(random, from, random.IntN(800)))
	}
	for _, text := range []string{
		strings.Repeat("a", 255*153), strings.Repeat("a", 255*153+1), strings.Repeat("я", 255*67), strings.Repeat("я", 255*67+1),
		strings.Repeat("e\u0301", 255*67/2), strings.Repeat("\u0301", 500),
	} {
		agrees(t, text)
	}
}

func agrees(t *testing.T, text string) {
	t.Helper()
	want := content.Segments(text)
	for _, long := range []string{LongUDH, LongSAR, LongPayload} {
		segments, err := Encode(text, options(long, plugin.GSM7, plugin.UCS2))
		switch {
		case want > MaxParts:
			if !errors.Is(err, ErrTooLong) {
				t.Errorf("%d octets, %s: %v", len(text), long, err)
			}
		case err != nil:
			t.Errorf("%d octets, %s: %v", len(text), long, err)
		case long != LongPayload && len(segments) != max(want, 1):
			t.Errorf("%q, %s: %d segments, want %d", text, long, len(segments), want)
		}
	}
}

func TestSizes(t *testing.T) {
	repeat := strings.Repeat
	for name, c := range map[string]struct {
		text string
		o    Options
		want []int // octets of each segment
	}{
		"nothing":              {"", options(LongUDH, plugin.GSM7), []int{0}},
		"160":                  {repeat("a", 160), options(LongUDH, plugin.GSM7), []int{160}},
		"161":                  {repeat("a", 161), options(LongUDH, plugin.GSM7), []int{6 + 153, 6 + 8}},
		"161, 16 bits":         {repeat("a", 161), options(LongUDH16, plugin.GSM7), []int{7 + 152, 7 + 9}},
		"161, TLVs":            {repeat("a", 161), options(LongSAR, plugin.GSM7), []int{153, 8}},
		"an escape":            {repeat("a", 152) + "€" + repeat("a", 10), options(LongUDH, plugin.GSM7), []int{6 + 152, 6 + 12}},
		"70":                   {repeat("я", 70), options(LongUDH, plugin.UCS2), []int{140}},
		"71":                   {repeat("я", 71), options(LongUDH, plugin.UCS2), []int{6 + 134, 6 + 8}},
		"71, 16 bits":          {repeat("я", 71), options(LongUDH16, plugin.UCS2), []int{7 + 132, 7 + 10}},
		"a pair":               {repeat("я", 66) + "😀" + repeat("я", 10), options(LongUDH, plugin.UCS2), []int{6 + 132, 6 + 24}},
		"an accent":            {repeat("я", 66) + "e\u0301" + repeat("я", 10), options(LongUDH, plugin.UCS2), []int{6 + 132, 6 + 24}},
		"accents, no room":     {repeat("я", 66) + "e\u0301" + repeat("я", 66), options(LongUDH, plugin.UCS2), []int{6 + 134, 6 + 134}},
		"a family":             {repeat("я", 62) + "👩‍👩‍👧" + repeat("я", 10), options(LongUDH, plugin.UCS2), []int{6 + 124, 6 + 36}},
		"a colour":             {repeat("я", 64) + "👋🏽" + repeat("я", 10), options(LongUDH, plugin.UCS2), []int{6 + 128, 6 + 28}},
		"140 in Latin 1":       {repeat("ê", 140), options(LongUDH, plugin.Latin1), []int{140}},
		"141 in Latin 1":       {repeat("ê", 141), options(LongUDH, plugin.Latin1), []int{6 + 134, 6 + 7}},
		"254, whole":           {repeat("a", 254), options(LongPayload, plugin.GSM7), []int{254}},
		"255, whole":           {repeat("a", 255), options(LongPayload, plugin.GSM7), []int{255}},
		"128 in UCS-2, whole":  {repeat("я", 128), options(LongPayload, plugin.UCS2), []int{256}},
		"as many as there may": {repeat("a", 255*152), options(LongUDH16, plugin.GSM7), slices.Repeat([]int{159}, 255)},
	} {
		t.Run(name, func(t *testing.T) {
			segments, err := Encode(c.text, c.o)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, s := range segments {
				got = append(got, len(s.Data))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			if text := joined(t, segments, c.o); text != c.text {
				t.Errorf("%q", text)
			}
		})
	}
}

func TestTooLong(t *testing.T) {
	for _, long := range longs {
		each := 153
		if long == LongUDH16 {
			each = 152
		}
		o := options(long, plugin.GSM7)
		if _, err := Encode(strings.Repeat("a", 255*each), o); err != nil {
			t.Errorf("%s, 255 parts: %v", long, err)
		}
		for _, length := range []int{255*each + 1, 1 << 20} {
			if _, err := Encode(strings.Repeat("a", length), o); !errors.Is(err, ErrTooLong) {
				t.Errorf("%s, %d characters: %v", long, length, err)
			}
		}
	}
}

// TestChoice: the first alphabet that has all characters is taken.
func TestChoice(t *testing.T) {
	const gsm, national, latin, ucs = plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2
	like := func(o Options) Options { o.Transliterate = true; return o }
	in := func(o Options, languages ...string) Options { o.National = languages; return o }
	for name, c := range map[string]struct {
		text   string
		o      Options
		coding uint8
		want   string // empty: as it was
		err    error
	}{
		"GSM":                            {"Grüße @ 5 €", options(LongUDH, gsm, ucs), 0, "", nil},
		"not GSM":                        {"čaj", options(LongUDH, gsm, ucs), 8, "", nil},
		"none":                           {"čaj", options(LongUDH, gsm, latin), 0, "", ErrAlphabet},
		"no alphabets":                   {"x", Options{}, 0, "", ErrAlphabet},
		"Latin 1":                        {"garçon", options(LongUDH, gsm, latin, ucs), 3, "", nil},
		"UCS-2 first":                    {"x", options(LongUDH, ucs, gsm), 8, "", nil},
		"national":                       {"ş", in(options(LongUDH, national, ucs), "turkish"), 0, "", nil},
		"the second language":            {"ş ç", in(options(LongUDH, national, ucs), "spanish", "turkish"), 0, "", nil},
		"national without a language":    {"ş", options(LongUDH, national, ucs), 8, "", nil},
		"national, and none needed":      {"x", in(options(LongUDH, national, ucs), "turkish"), 0, "", nil},
		"transliterated":                 {"“Příliš žluťoučký kůň…” – it’s", like(options(LongUDH, gsm, ucs)), 0, `"Prilis zlutoucky kun..." - it's`, nil},
		"the next one exactly":           {"č", like(options(LongUDH, latin, ucs)), 3, "c", nil},
		"an accent of its own":           {"e\u0301", like(options(LongUDH, gsm, ucs)), 0, "é", nil},
		"ligatures":                      {"ﬁœuvre Łódź", like(options(LongUDH, gsm, ucs)), 0, "fioeuvre Lodz", nil},
		"what the alphabet has, stays":   {"ñ Æ ß € č", like(options(LongUDH, gsm, ucs)), 0, "ñ Æ ß € c", nil},
		"in Latin 1":                     {"€ č", like(options(LongUDH, latin, ucs)), 3, "EUR c", nil},
		"Greek capitals":                 {"ΚΑΛΗΜΕΡΑ ΆΡΗ", like(options(LongUDH, gsm, ucs)), 0, "KAΛHMEPA APH", nil},
		"Greek":                          {"καλημέρα", like(options(LongUDH, gsm, ucs)), 8, "", nil},
		"Cyrillic":                       {"Привет", like(options(LongUDH, gsm, ucs)), 8, "", nil},
		"Cyrillic й is no и":             {"й", like(options(LongUDH, gsm)), 0, "", ErrAlphabet},
		"emoji":                          {"😀", like(options(LongUDH, gsm, ucs)), 8, "", nil},
		"national, transliterated":       {"ş č", like(in(options(LongUDH, national, ucs), "turkish")), 0, "ş c", nil},
		"national, none needed then":     {"č", like(in(options(LongUDH, national, ucs), "turkish")), 0, "c", nil},
		"transliteration is in order":    {"ç", like(options(LongUDH, gsm, latin)), 0, "c", nil},
		"space that doesn't break":       {"a\u00a0b\tc", like(options(LongUDH, gsm)), 0, "a b c", nil},
		"what can't be seen is left out": {"a\u200bb\ufeff", like(options(LongUDH, gsm)), 0, "ab", nil},
	} {
		t.Run(name, func(t *testing.T) {
			segments, err := Encode(c.text, c.o)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			want := c.want
			if want == "" {
				want = c.text
			}
			if got := joined(t, segments, c.o); got != want || segments[0].DataCoding != c.coding {
				t.Errorf("%q in %d, want %q in %d", got, segments[0].DataCoding, want, c.coding)
			}
		})
	}
}

// TestNationalTables: of the tables of a language, those are used with which the
// text takes the least.
func TestNationalTables(t *testing.T) {
	for name, c := range map[string]struct {
		text, language string
		want           string // information elements, in hexadecimal
	}{
		"none":          {"abc", "turkish", ""},
		"one letter":    {"ş", "turkish", "250101"},         // ş is in the basic table
		"some":          {"Ortak Ğ [", "turkish", "250101"}, // and [ in every extension table
		"Spanish":       {"Más días", "spanish", "240102"},  // á and í are in the extension table alone
		"Hindi":         {"नमस्ते", "hindi", "250106"},      // all of the basic table
		"Hindi's signs": {"हिंदी में", "hindi", "250106"},
		"Hindi, both":   {"नमस्ते ०", "hindi", "240106250106"},           // with a digit
		"many, long":    {strings.Repeat("ğ", 100), "turkish", "250101"}, //
		"no such lang.": {"abc", "klingon", ""},                          //
		"Portuguese":    {"ção", "portuguese", "250103"},                 //
	} {
		t.Run(name, func(t *testing.T) {
			o := options(LongUDH, plugin.GSM7National)
			o.National = []string{c.language}
			segments, err := Encode(c.text, o)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if s := segments[0]; s.UDHI {
				got = fmt.Sprintf("%x", s.Data[1:1+s.Data[0]])
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if text := joined(t, segments, o); text != c.text {
				t.Errorf("%q", text)
			}
		})
	}
}

func TestBinary(t *testing.T) {
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i)
	}
	ports := []byte{0x05, 4, 0x0b, 0x84, 0, 0}
	for _, long := range longs {
		for _, elements := range [][]byte{nil, ports} {
			for _, length := range []int{0, 1, 127, 128, 133, 134, 140, 141, 1000} {
				o := options(long)
				o.Elements = elements
				segments, err := EncodeBinary(data[:length], 0xf5, o)
				if err != nil {
					t.Fatal(err)
				}
				var whole []byte
				for i, s := range segments {
					d, err := Decode(s.Data, s.DataCoding, s.UDHI, GSM7)
					if err != nil || !d.Binary || s.DataCoding != 0xf5 || !slices.Equal(d.UDH, elements) {
						t.Fatalf("%s, %d octets: %+v, %v", long, length, d, err)
					}
					checkPart(t, s, d, i+1, len(segments), o)
					whole = append(whole, d.Data...)
				}
				if !slices.Equal(whole, data[:length]) {
					t.Errorf("%s, %d octets arrive as %d", long, length, len(whole))
				}
			}
		}
	}
	o := options(LongUDH)
	o.Elements = make([]byte, 100)
	if _, err := EncodeBinary(data, 4, o); !errors.Is(err, ErrElements) {
		t.Error(err)
	}
}

// FuzzEncode: what is written reads as it was, if it was UTF-8.
func FuzzEncode(f *testing.F) {
	f.Add("hello €", uint8(0), 1)
	f.Add("я😀e\u0301", uint8(1), 70)
	f.Add("ş ç", uint8(2), 60)
	f.Add("\xff", uint8(3), 200)
	f.Fuzz(func(t *testing.T, text string, how uint8, times int) {
		text = strings.Repeat(text, min(max(0, times), 300))
		o := options(longs[how%4], plugin.GSM7National, plugin.Latin1, plugin.UCS2)
		o.National = []string{"turkish", "hindi"}
		segments, err := Encode(text, o)
		if err != nil {
			if !errors.Is(err, ErrTooLong) {
				t.Fatal(err)
			}
			return
		}
		if got, want := joined(t, segments, o), string([]rune(text)); got != want {
			t.Errorf("%q arrives as %q", want, got)
		}
		o.Transliterate, o.Alphabets = true, []plugin.Alphabet{plugin.GSM7}
		if segments, err = Encode(text, o); err == nil {
			joined(t, segments, o)
		}
	})
}

// TestUTF16 compares with the standard library.
func TestUTF16(t *testing.T) {
	text := "a\u0301я語😀\U0010ffff"
	segments, err := Encode(text, options(LongUDH, plugin.UCS2))
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, u := range utf16.Encode([]rune(text)) {
		want = append(want, byte(u>>8), byte(u))
	}
	if !slices.Equal(segments[0].Data, want) {
		t.Errorf("%x, want %x", segments[0].Data, want)
	}
}

func BenchmarkEncode(b *testing.B) {
	o := options(LongPayload, plugin.GSM7, plugin.UCS2)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode("Hello Bob, are you coming at nine?", o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data := []byte("Hello Bob, are you coming at nine?")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data, 0, false, GSM7); err != nil {
			b.Fatal(err)
		}
	}
}
