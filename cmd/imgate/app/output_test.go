package app

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// TestPrintJSON: what is printed moves no cursor, and says the same.
func TestPrintJSON(t *testing.T) {
	for _, text := range []string{
		"plain", "<b> & \"quoted\"", "grüße 😀", "\x1b[2J", "csi \u009b2J", "\u202egnp", "tag \U000e0041", "line\u2028end\n",
	} {
		var out bytes.Buffer
		if err := printJSON(&out, map[string]string{"text": text}); err != nil {
			t.Fatal(err)
		}
		line, ended := strings.CutSuffix(out.String(), "\n")
		if !ended || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is printed as %q", text, out.String())
		}
		var back map[string]string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["text"] != text {
			t.Errorf("%q comes back as %q: %v", text, back["text"], err)
		}
	}
}
