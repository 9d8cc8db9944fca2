package content

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const cpim = "From: Alice <im:alice@example.com>\r\nTo: <im:bob@example.com>\r\nDateTime: 2026-01-02T03:04:05Z\r\n\r\n"

func TestText(t *testing.T) {
	small := "Content-Encoding: gzip\r\n\r\n" + string(compressed(t, "gzip", []byte("x")))
	half := "Content-Type: message/cpim\r\nContent-Encoding: gzip\r\n\r\n" +
		string(compressed(t, "gzip", []byte(cpim+"Content-Type: a/b\r\n\r\n"+strings.Repeat("x", maxDecoded/2))))
	for name, c := range map[string]struct {
		contentType, body string
		want              string
		ok                bool
	}{
		"plain":                   {"text/plain", "hello", "hello", true},
		"plain, empty":            {"text/plain", "", "", true},
		"in capitals":             {"Text/PLAIN; Charset=UTF-8", "grüß Gott", "grüß Gott", true},
		"quoted":                  {`text/plain; charset="utf-8"`, "ü", "ü", true},
		"two parameters":          {"text/plain; format=flowed; charset=iso-8859-1", "\xfc", "ü", true},
		"charset first":           {"text/plain;charset=iso-8859-1;format=flowed", "\xfc", "ü", true},
		"ASCII":                   {"text/plain;charset=us-ascii", "x", "x", true},
		"Latin 1":                 {"text/plain;charset=ISO-8859-1", "\xe4\xf6", "äö", true},
		"another charset":         {"text/plain;charset=koi8-r", "x", "", false},
		"Latin 9":                 {"text/plain;charset=iso-8859-15", "\xa4\xe4\xa6\xa8\xb4\xb8\xbc\xbd\xbe\xa5", "€äŠšŽžŒœŸ¥", true},
		"Windows":                 {"text/plain;charset=Windows-1252", "\x80\x93\xe4\x94\x9f", "€“ä”Ÿ", true},
		"Windows, nothing":        {"text/plain;charset=windows-1252", "a\x81", "", false},
		"UTF-16":                  {"text/plain;charset=utf-16", "\xff\xfea\x00=\xd8\x00\xde", "a😀", true},
		"UTF-16, big":             {"text/plain;charset=utf-16", "\xfe\xff\x00a", "a", true},
		"UTF-16, no mark":         {"text/plain;charset=utf-16", "\x00a", "a", true},
		"UTF-16LE":                {"text/plain;charset=utf-16le", "a\x00", "a", true},
		"UTF-16BE":                {"text/plain;charset=utf-16be", "\xd8=\xde\x00", "😀", true},
		"UTF-16, a half":          {"text/plain;charset=utf-16be", "\xd8=", "", false},
		"UTF-16, half a pair":     {"text/plain;charset=utf-16be", "\xd8=\x00a", "", false},
		"UTF-16, a second half":   {"text/plain;charset=utf-16be", "\xde\x00\x00a", "", false},
		"UTF-16, odd":             {"text/plain;charset=utf-16", "\x00", "", false},
		"UTF-16, nothing":         {"text/plain;charset=utf-16", "", "", true},
		"mixed":                   {mixedType, mixed("Content-Type: text/html\r\n\r\n<p>", "Content-Type: text/plain;charset=iso-8859-1\r\n\r\n\xfc", "\r\nz"), "ü", true},
		"alternative, base64":     {"multipart/alternative;boundary=\"b\"", mixed("Content-Transfer-Encoding: base64\r\n\r\nw7w="), "ü", true},
		"related, quoted":         {"multipart/related;boundary=b", mixed("Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC"), "ü", true},
		"mixed, deflated":         {mixedType, mixed("Content-Encoding: deflate\r\n\r\n" + string(compressed(t, "deflate", []byte("ü")))), "ü", true},
		"mixed, much":             {mixedType, mixed(half, small), "x", true},
		"mixed, much twice":       {mixedType, mixed(half, half, small), "", false},
		"mixed, bombs":            {mixedType, mixed("Content-Encoding: gzip\r\n\r\n"+string(compressed(t, "gzip", make([]byte, maxDecoded+1))), small), "", false},
		"mixed, not readable":     {mixedType, mixed("Content-Type: text/plain;charset=koi8-r\r\n\r\nx", "\r\n\xff", "\r\ny"), "y", true},
		"mixed in mixed":          {mixedType, mixed("Content-Type: multipart/mixed;boundary=c\r\n\r\n" + strings.ReplaceAll(mixed("\r\nx"), "--b", "--c")), "x", true},
		"mixed, line feeds":       {mixedType, "--b\n\nx\n--b--\n", "x", true},
		"mixed in cpim":           {"message/cpim", cpim + "Content-Type: " + mixedType + "\r\n\r\n" + mixed("\r\nx"), "x", true},
		"cpim in mixed":           {mixedType, mixed("Content-Type: message/cpim\r\n\r\n" + cpim + "\r\nx"), "x", true},
		"mixed without boundary":  {"multipart/mixed", mixed("\r\nx"), "", false},
		"mixed without end":       {mixedType, "--b\r\n\r\nx", "", false},
		"mixed with bad headers":  {mixedType, "--b\r\nx\r\n\r\nx\r\n--b--", "", false},
		"digest":                  {"multipart/digest; boundary=b", mixed("\r\nx"), "", false},
		"not UTF-8":               {"text/plain", "\xff", "", false},
		"ASCII that isn't":        {"text/plain;charset=us-ascii", "\xff", "", false},
		"parameters that aren't":  {`text/plain; charset="`, "x", "", false},
		"html":                    {"text/html", "<b>x</b>", "", false},
		"is typing":               {TypeComposing, "<x/>", "", false},
		"no type":                 {"", "x", "", false},
		"cpim":                    {"message/cpim", cpim + "Content-Type: text/plain; charset=utf-8\r\n\r\ngrüß\r\n\r\nGott", "grüß\r\n\r\nGott", true},
		"cpim, line feeds":        {"Message/CPIM", "From: a\n\nContent-Type: text/plain\n\nx", "x", true},
		"cpim, no inner headers":  {"message/cpim", cpim + "\r\nx", "x", true},
		"cpim, no outer headers":  {"message/cpim", "\r\nContent-Type: text/plain\r\n\r\nx", "x", true},
		"cpim, folded":            {"message/cpim", cpim + "Content-Type: text/plain;\r\n charset=iso-8859-1\r\n\r\n\xfc", "ü", true},
		"cpim, 8bit":              {"message/cpim", cpim + "Content-Transfer-Encoding: 8BIT\r\n\r\nx", "x", true},
		"cpim, base64":            {"message/cpim", cpim + "Content-Transfer-Encoding: base64\r\n\r\neA==", "x", true},
		"cpim, html":              {"message/cpim", cpim + "Content-Type: text/html\r\n\r\nx", "", false},
		"cpim, cpim":              {"message/cpim", cpim + "Content-Type: message/cpim\r\n\r\n" + cpim + "\r\nx", "x", true},
		"cpim, not UTF-8":         {"message/cpim", cpim + "\r\n\xff", "", false},
		"cpim without an end":     {"message/cpim", "From: a\r\n", "", false},
		"cpim without a content":  {"message/cpim", "From: a\r\n\r\nContent-Type: text/plain", "", false},
		"cpim, many lines":        {"message/cpim", strings.Repeat("A: b\r\n", maxLines) + "\r\n\r\nx", "", false},
		"cpim, a long line":       {"message/cpim", "A: " + strings.Repeat("b", maxHead) + "\r\n\r\n\r\nx", "", false},
		"cpim, nothing":           {"message/cpim", "", "", false},
		"cpim, a type that isn't": {"message/cpim", cpim + "Content-Type: text/plain; \"\r\n\r\nx", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := Text(c.contentType, []byte(c.body)); got != c.want || ok != c.ok {
				t.Errorf("%q, %t; want %q, %t", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestSegments(t *testing.T) {
	repeat := strings.Repeat
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"nothing":                      {"", 0},
		"one character":                {"a", 1},
		"160":                          {repeat("a", 160), 1},
		"161":                          {repeat("a", 161), 2},
		"306":                          {repeat("a", 306), 2},
		"307":                          {repeat("a", 307), 3},
		"the whole alphabet":           {"@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà", 1},
		"the extension table":          {repeat("\f^{}\\[~]|€", 8), 1},
		"one too many of it":           {repeat("\f^{}\\[~]|€", 8) + "€", 2},
		"an escape at the end":         {repeat("a", 152) + "€" + repeat("a", 10), 2},
		"an escape isn't split":        {repeat("a", 152) + "€" + repeat("a", 152), 3}, // 152, 2+151, 1
		"the same without":             {repeat("a", 152) + "aa" + repeat("a", 152), 2},
		"a small cedilla":              {"ç", 1},
		"70 in UCS-2":                  {repeat("я", 70), 1},
		"71":                           {repeat("я", 71), 2},
		"134":                          {repeat("я", 134), 2},
		"135":                          {repeat("я", 135), 3},
		"a backtick is UCS-2":          {repeat("a", 70) + "`", 2},
		"a tab is UCS-2":               {repeat("a", 70) + "\t", 2},
		"one at the end":               {repeat("a", 159) + "я", 3},
		"35 pairs":                     {repeat("😀", 35), 1},
		"36 pairs":                     {repeat("😀", 36), 2},
		"a pair isn't split":           {repeat("я", 66) + "😀" + repeat("я", 66), 3}, // 66, 2+65, 1
		"66 and two":                   {repeat("я", 66) + "яя" + repeat("я", 66), 2},
		"as many as there may be":      {repeat("a", MaxSegments*153), MaxSegments},
		"one more":                     {repeat("a", MaxSegments*153+1), MaxSegments + 1},
		"very many":                    {repeat("a", 1<<20), MaxSegments + 1},
		"as many in UCS-2":             {repeat("я", MaxSegments*67), MaxSegments},
		"one more in UCS-2":            {repeat("я", MaxSegments*67+1), MaxSegments + 1},
		"long, and UCS-2 at its end":   {repeat("a", MaxSegments*67) + "я", MaxSegments + 1},
		"long, of escapes and one not": {repeat("€", MaxSegments*67-1) + "я", MaxSegments},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Segments(c.text); got != c.want {
				t.Errorf("%d segments, want %d", got, c.want)
			}
		})
	}
}

// naive is Segments by the letter: it fills one list of segments after the other.
func naive(text string) int {
	width, alone, each := septets, septetsAlone, septetsEach
	if strings.ContainsFunc(text, func(r rune) bool { return septets(r) == 0 }) {
		width, alone, each = units16, unitsAlone, unitsEach
	}
	total, segments, room := 0, 0, 0
	for _, r := range text {
		total += width(r)
		if room < width(r) {
			segments, room = segments+1, each
		}
		room -= width(r)
	}
	if total <= alone {
		segments = min(segments, 1)
	}
	return min(segments, MaxSegments+1)
}

func FuzzText(f *testing.F) {
	f.Add("text/plain", []byte("hello €"))
	f.Add("text/plain;charset=iso-8859-1", []byte("\xfc"))
	f.Add("message/cpim", []byte(cpim+"Content-Type: text/plain\r\n\r\nx 😀"))
	f.Add("message/cpim", []byte("A: b\n c\n\n\n"))
	f.Add("text/plain;charset=utf-16", []byte("\xff\xfea\x00"))
	f.Add("text/plain;charset=windows-1252", []byte("\x80"))
	f.Add(mixedType, []byte(mixed("Content-Transfer-Encoding: base64\r\n\r\nw7w=", "Content-Type: "+mixedType+"\r\n\r\nx")))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		text, ok := Text(contentType, body)
		if !utf8.ValidString(text) || !ok && text != "" {
			t.Errorf("%q, %t", text, ok)
		}
		if got, want := Segments(text), naive(text); got != want {
			t.Errorf("%q takes %d segments, want %d", text, got, want)
		}
	})
}

// FuzzSegments also gets what isn't UTF-8.
func FuzzSegments(f *testing.F) {
	f.Add("hello €", 20)
	f.Add("я😀", 40)
	f.Add("\xff", 200)
	f.Fuzz(func(t *testing.T, text string, times int) {
		text = strings.Repeat(text, max(0, times%400))
		if got, want := Segments(text), naive(text); got != want {
			t.Errorf("%d segments, want %d", got, want)
		}
	})
}

func BenchmarkSegments(b *testing.B) {
	body := []byte("Hello Bob, are you coming at nine?")
	b.ReportAllocs()
	for b.Loop() {
		text, _ := Text("text/plain;charset=utf-8", body)
		Segments(text)
	}
}

// units16 is how many units of UTF-16 a character takes.
func units16(r rune) int {
	if r > 0xffff {
		return 2
	}
	return 1
}
