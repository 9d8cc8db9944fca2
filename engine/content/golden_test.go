package content

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

var update = flag.Bool("update", false, "write the golden files anew")

// reading is what we make of a message/cpim.
type reading struct {
	Class, Inner   string
	Wants          message.Report
	Text           string `json:",omitempty"`
	Message        string `json:",omitempty"` // the name by which IMDNs call it
	From           Party
	To             []Party
	DateTime       time.Time
	Headers        []Header `json:",omitempty"`
	ContentType    string
	ContentHeaders []Header `json:",omitempty"`
	IMDN           *IMDN    `json:",omitempty"`
}

// sample reads a file of testdata as it comes over the network.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

func read(t *testing.T, body []byte) reading {
	t.Helper()
	c, err := ParseCPIM(body)
	if err != nil {
		t.Fatal(err)
	}
	facts := Examine(TypeCPIM, body)
	text, _ := Text(TypeCPIM, body)
	r := reading{
		Class: facts.Class.String(), Inner: facts.Inner, Wants: facts.Wants, Text: text, Message: c.messageID(),
		From: c.From, To: c.To, DateTime: c.DateTime, Headers: c.Headers, ContentType: c.ContentType, ContentHeaders: c.ContentHeaders,
	}
	if contentType, inner, ok := Unwrap(body); ok && MediaType(contentType) == TypeIMDN {
		if r.IMDN, err = ParseIMDN(inner); err != nil {
			t.Error(err)
		}
	}
	return r
}

// TestGolden: envelopes as clients write them, and what we make of them.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.cpim")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(read(t, sample(t, name)), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			compare(t, strings.TrimSuffix(file, ".cpim")+".json", append(got, '\n'))
		})
	}
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// TestGoldenNotifications: what the gateway says itself, word for word.
func TestGoldenNotifications(t *testing.T) {
	done := time.Date(2026, 11, 23, 13, 0, 5, 0, time.FixedZone("", 3600))
	for name, state := range map[string]message.ReceiptState{
		"delivered": message.ReceiptDelivered, "failed": message.ReceiptFailed, "unknown": message.ReceiptUnknown,
	} {
		t.Run(name, func(t *testing.T) {
			contentType, body, ok := Notify(sample(t, "linphone-text.cpim"), state, done)
			if !ok || contentType != TypeCPIM || bytes.Count(body, []byte("\n")) != bytes.Count(body, []byte("\r\n")) {
				t.Fatalf("%q %q, %t", contentType, body, ok)
			}
			compare(t, "testdata/notify-"+name+".txt", bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")))
		})
	}
}
