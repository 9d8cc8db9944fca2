package content

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"
)

func TestParseCPIMRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                        "",
		"no end of the envelope":         "From: a\r\n",
		"no end of the content":          "From: a\r\n\r\nContent-Type: text/plain\r\n",
		"no colon":                       "From a\r\n\r\n\r\nx",
		"no name":                        ": a\r\n\r\n\r\nx",
		"no colon in the content":        "From: a\r\n\r\nContent-Type\r\n\r\nx",
		"no name in the content":         "From: a\r\n\r\n : a\r\n\r\nx",
		"From twice":                     "From: <im:a@b>\r\nFrom: <im:c@d>\r\n\r\n\r\nx",
		"DateTime twice":                 cpimHead("DateTime: 2026-01-02T03:04:06Z") + "\r\nx",
		"an encoding twice":              cpim + "Content-Encoding: gzip\r\ncontent-encoding: gzip\r\n\r\nx",
		"longer than it is":              cpim + "Content-Length: 2\r\n\r\nx",
		"shorter than it is":             cpim + "Content-Length: 1\r\n\r\nxy",
		"a length that is none":          cpim + "Content-Length: -1\r\n\r\nx",
		"a length beyond all":            cpim + "Content-Length: 99999999999999999999\r\n\r\nx",
		"two lengths":                    cpim + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
		"not UTF-8":                      "From: \xff\r\n\r\n\r\nx",
		"a bare CR":                      "From: a\rTo: b\r\n\r\n\r\nx",
		"NUL":                            "From: \x00\r\n\r\n\r\nx",
		"too many lines":                 strings.Repeat("A: b\r\n", maxLines) + "\r\n\r\nx",
		"too many lines of the content":  "\r\n" + strings.Repeat("A: b\r\n", maxLines) + "\r\nx",
		"a long line":                    "A: " + strings.Repeat("b", maxHead) + "\r\n\r\n\r\nx",
		"long lines, none too long":      "A: " + strings.Repeat("b", maxHead/2) + "\r\n\r\nB: " + strings.Repeat("b", maxHead/2) + "\r\n\r\nx",
		"long lines, folded":             "A: b\r\n" + strings.Repeat(" "+strings.Repeat("b", maxHead/4)+"\r\n", 4) + "\r\n\r\nx",
		"its own type, and nothing else": "Content-Type: message/cpim\r\n\r\n\r\nx",
	} {
		if c, err := ParseCPIM([]byte(body)); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func cpimHead(line string) string { return strings.TrimSuffix(cpim, "\r\n") + line + "\r\n\r\n" }

func TestParseCPIM(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want CPIM
	}{
		"nothing in it": {"\r\n\r\n", CPIM{}},
		"line feeds":    {"From: A <im:a@b>\nX: y\n\nContent-Length: 1\n\nx", CPIM{From: Party{"A", "im:a@b"}, Headers: []Header{{Name: "X", Value: "y"}}, Body: []byte("x")}},
		"line ends behind it": {"\n\nContent-Length: 1\n\nx\r\n\r\n", CPIM{
			Body: []byte("Content-Length: 1\n\nx\r\n\r\n"),
		}},
		"line ends behind what has a length": {"X: y\n\nContent-Length: 1\n\nx\r\n\r\n", CPIM{Headers: []Header{{Name: "X", Value: "y"}}, Body: []byte("x")}},
		"folded":                             {"X: y\r\n z\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "X", Value: "y z"}}}},
		"parties that can't be read":         {"From: a\r\nTo: <b\r\nTo: >c<\r\n\r\n\r\n", CPIM{To: []Party{{}, {}}}},
		"a time that can't be read":          {"DateTime: yesterday\r\n\r\n\r\n", CPIM{}},
		"names are case-sensitive":           {"from: <im:a@b>\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "from", Value: "<im:a@b>"}}}},
		"a prefix that isn't declared":       {"imdn.X: y\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "imdn.X", Value: "y"}}}},
		"a prefix that is declared later":    {"imdn.X: y\r\nNS: imdn <u>\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "imdn.X", Value: "y"}}}},
		"a prefix that is declared anew":     {"NS: a <u>\r\nNS: a <v>\r\na.X: y\r\n\r\n\r\n", CPIM{Headers: []Header{{Space: "v", Name: "X", Value: "y"}}}},
		"names of another space":             {"NS: <u>\r\nFrom: y\r\n\r\n\r\n", CPIM{Headers: []Header{{Space: "u", Name: "From", Value: "y"}}}},
		"escapes":                            {`X: \"\'\\\b\t\n\r\u00e4\u00E4` + "\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "X", Value: "\"'\\\b\t\n\rää"}}}},
		"escapes that are none":              {`X: \x\u12\u12g4\` + "\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "X", Value: `\x\u12\u12g4\`}}}},
		"halves of pairs":                    {`X: \ud83d\ud83d\ude00\ude00\ud83d` + "\r\n\r\n\r\n", CPIM{Headers: []Header{{Name: "X", Value: "\uFFFD😀\uFFFD\uFFFD"}}}},
		"headers of the content":             {"\r\ncontent-type:\r\nCONTENT-ID:<a>\r\n\r\n", CPIM{ContentHeaders: []Header{{Name: "CONTENT-ID", Value: "<a>"}}}},
	} {
		if test.want.ContentType == "" {
			test.want.ContentType = TypePlain
		}
		got, err := ParseCPIM([]byte(test.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Body) == 0 {
			got.Body = nil
		}
		if !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%s: got %+v, want %+v", name, *got, test.want)
		}
	}
}

// TestCPIMRoundTrip: what is written is read as it was.
func TestCPIMRoundTrip(t *testing.T) {
	roundTrip := func(seed uint64) bool {
		c := anyCPIM(rand.New(rand.NewPCG(seed, 1)))
		b := c.Append(nil)
		got, err := ParseCPIM(b)
		if err != nil || !got.DateTime.Equal(c.DateTime) {
			t.Logf("%v\n%q", err, b)
			return false
		}
		got.DateTime = c.DateTime
		if !reflect.DeepEqual(got, c) {
			t.Logf("got %+v\nwant %+v\n%q", got, c, b)
			return false
		}
		return bytes.Equal(got.Append(nil), b)
	}
	if err := quick.Check(roundTrip, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func anyCPIM(r *rand.Rand) *CPIM {
	c := &CPIM{From: anyParty(r), ContentType: TypePlain, Body: []byte(anyText(r))}
	for range 1 + r.IntN(3) {
		c.To = append(c.To, anyParty(r))
	}
	if r.IntN(2) == 0 {
		c.DateTime = time.Unix(r.Int64N(1<<33), 0).UTC()
	}
	for range r.IntN(5) {
		c.Headers = append(c.Headers, Header{
			Space: []string{"", NamespaceIMDN, "urn:example:other", "urn:example:" + anyText(r)}[r.IntN(4)],
			Name:  []string{"Subject", "Require", "X-9", "a~b"}[r.IntN(4)], Params: []string{"", "lang=fr"}[r.IntN(2)], Value: anyText(r),
		})
	}
	for i := range r.IntN(3) {
		c.ContentHeaders = append(c.ContentHeaders, Header{Name: []string{"Content-ID", "Content-Disposition"}[i], Value: "<é>"})
	}
	return c
}

func anyParty(r *rand.Rand) Party {
	return Party{Name: []string{"", anyText(r)}[r.IntN(2)], URI: "im:a@b;x=" + anyText(r)}
}

// anyText has neither spaces at its ends, nor anything that isn't UTF-8.
func anyText(r *rand.Rand) string {
	words := []string{"", "a", "b c", `"`, `\`, `\n`, "\r\n", "\n\n", "\t", "\x00", "\u0085", "\u007f", "ü", "😀", ": ", ";", ".", "\\u0041", "From"}
	text := ""
	for range r.IntN(5) {
		text += words[r.IntN(len(words))]
	}
	return "x" + text + "x"
}

// TestCPIMInjection: whatever a field holds, no line begins that isn't ours.
func TestCPIMInjection(t *testing.T) {
	const evil = "x>\r\nEvil: y\r\n\r\nEvil: z\nEvil: \u0085\u2028Evil: <\""
	c := CPIM{
		From: Party{evil, evil}, To: []Party{{evil, evil}}, DateTime: time.Unix(0, 0),
		Headers: []Header{
			{evil, "A", evil, evil}, {"", "B", evil, evil}, {NamespaceIMDN, "C", "a\r\nEvil: x", evil},
			{"", evil, "", "a"}, {"u", evil, "", "a"}, {"", "From", "", "a"}, {"", "NS", "", "a"}, {"", "", "", "a"}, {"", "a:b", "", "c"},
		},
		ContentType:    "text/plain\r\nEvil: x",
		ContentHeaders: []Header{{Name: "D", Value: evil}, {Name: evil, Value: "x"}, {Name: "content-length", Value: "99"}, {Name: "Content-Type", Value: "a/b"}},
		Body:           []byte("the body"),
	}
	b := c.Append(nil)
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "Evil") {
			t.Errorf("%q", line)
		}
	}
	got, err := ParseCPIM(b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range slices.Concat(got.Headers, got.ContentHeaders) {
		names = append(names, h.Name)
	}
	if strings.Join(names, " ") != "A B C D" || string(got.Body) != "the body" || len(got.To) != 1 || got.From.Name != evil {
		t.Errorf("%v %+v", names, got)
	}
}

func TestUnwrap(t *testing.T) {
	nested := func(depth int) string {
		return strings.Repeat(cpim+"Content-Type: message/cpim\r\n\r\n", depth-1) + cpim + "Content-Type: text/html\r\n\r\nx"
	}
	for name, test := range map[string]struct {
		body, contentType, inner string
		ok                       bool
	}{
		"plain":             {cpim + "Content-Type: text/plain; charset=utf-8\r\n\r\nx", "text/plain; charset=utf-8", "x", true},
		"no type":           {cpim + "\r\nx", "text/plain", "x", true},
		"binary":            {cpim + "Content-Type: image/png\r\nContent-Transfer-Encoding: BINARY\r\n\r\n\xff\x00", "image/png", "\xff\x00", true},
		"base64":            {cpim + "Content-Transfer-Encoding: Base64\r\n\r\neA\r\n==\r\n", "text/plain", "x", true},
		"not base64":        {cpim + "Content-Transfer-Encoding: base64\r\n\r\n???", "text/plain", "", false},
		"quoted":            {cpim + "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC=\r\nx", "text/plain", "üx", true},
		"not quoted":        {cpim + "Content-Transfer-Encoding: quoted-printable\r\n\r\n\x01", "text/plain", "", false},
		"some way or other": {cpim + "Content-Transfer-Encoding: rot13\r\n\r\nx", "text/plain", "", false},
		"deflated":          {cpim + "Content-Encoding: deflate\r\n\r\n" + string(compressed(t, "deflate", []byte("x"))), "text/plain", "x", true},
		"a bomb":            {cpim + "Content-Encoding: gzip\r\n\r\n" + string(compressed(t, "gzip", make([]byte, maxDecoded+1))), "text/plain", "", false},
		"in another":        {nested(maxDepth), "text/html", "x", true},
		"in too many":       {nested(maxDepth + 1), "", "", false},
		"not one":           {"x", "", "", false},
		"one that isn't":    {cpim + "Content-Type: message/cpim\r\n\r\nx", "", "", false},
	} {
		contentType, inner, ok := Unwrap([]byte(test.body))
		if ok != test.ok || ok && (contentType != test.contentType || string(inner) != test.inner) {
			t.Errorf("%s: %q %q, %t", name, contentType, inner, ok)
		}
	}
}

// FuzzCPIM: what can be read is the same once it is written; nothing panics.
func FuzzCPIM(f *testing.F) {
	for _, name := range []string{"linphone-text.cpim", "escapes.cpim", "rcs-displayed.cpim", "linphone-together.cpim"} {
		f.Add(sample(f, name))
	}
	f.Add([]byte("\n\n"))
	f.Add([]byte(cpim + "Content-Length: 1\r\n\r\nx\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		Examine(TypeCPIM, body)
		if contentType, _, ok := Unwrap(body); ok && MediaType(contentType) == TypeCPIM {
			t.Error("still wrapped")
		}
		c, err := ParseCPIM(body)
		if err != nil {
			return
		}
		once := c.Append(nil)
		again, err := ParseCPIM(once)
		if err != nil {
			if len(once)-len(c.Body) > maxHead { // escapes take more room
				return
			}
			t.Fatalf("%v: %q", err, once)
		}
		if !bytes.Equal(again.Body, c.Body) || !bytes.Equal(again.Append(nil), once) {
			t.Errorf("%q, then %q", once, again.Append(nil))
		}
	})
}
