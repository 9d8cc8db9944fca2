package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

var update = flag.Bool("update", false, "write the golden files anew")

const maxBody = 64 << 10

// view is what a golden file says about a message.
type view struct {
	Refusal  string `json:",omitempty"` // "400 Bad Via, dropped"
	Method   string `json:",omitempty"`
	URI      string `json:",omitempty"`
	To       string `json:",omitempty"`
	Address  string `json:",omitempty"` // of the Request-URI
	Status   int    `json:",omitempty"`
	Via      string `json:",omitempty"`
	Branch   string `json:",omitempty"`
	From     string `json:",omitempty"`
	Display  string `json:",omitempty"`
	FromTag  string `json:",omitempty"`
	ToTag    string `json:",omitempty"`
	CallID   string `json:",omitempty"`
	CSeq     uint32 `json:",omitempty"`
	Hops     uint8  `json:",omitempty"`
	Headers  []string
	Body     string `json:",omitempty"`
	Response string `json:",omitempty"` // the 200 to it
}

var testFlow = Flow{Network: "udp", Local: netip.MustParseAddrPort("192.0.2.9:5060"), Remote: netip.MustParseAddrPort("198.51.100.1:4000")}

func look(t *testing.T, data []byte) view {
	t.Helper()
	request, response, refusal := Parse(data, maxBody)
	if refusal != nil {
		fate := "dropped"
		if request != nil {
			fate = "answered"
		}
		return view{Refusal: fmt.Sprintf("%d %s, %s", refusal.Status, refusal.Phrase, fate)}
	}
	if response != nil {
		v := view{Status: response.Status, Branch: response.Branch, CSeq: response.CSeq, Method: response.Method, Body: string(response.Body)}
		v.addHeaders(response.headers)
		return v
	}
	request.Flow = testFlow
	reply, err := AppendReply(nil, request, Reply{Status: 200}, "ours")
	if err != nil {
		t.Errorf("response: %v", err)
	}
	address, _ := Address(request.URI)
	v := view{
		Method: request.Method, URI: request.URIText, Address: address.String(), To: request.To.URI,
		Via: fmt.Sprintf("%s:%d", request.Via.Host, request.Via.Port), Branch: request.Via.Branch,
		From: request.From.URI, Display: request.From.Display, FromTag: request.FromTag, ToTag: request.ToTag,
		CallID: request.CallID, CSeq: request.CSeq, Hops: request.MaxForwards, Body: string(request.Body), Response: string(reply),
	}
	v.addHeaders(request.headers)
	return v
}

func (v *view) addHeaders(headers []Header) {
	for _, h := range headers {
		v.Headers = append(v.Headers, h.Name+": "+h.Value)
	}
}

// TestGolden compares what is read from name.sip with name.json.
func TestGolden(t *testing.T) {
	for _, dir := range []string{"valid", "refused"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.sip"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files: %v", err)
		}
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) { compare(t, file, dir == "refused") })
		}
	}
}

func compare(t *testing.T, file string, refused bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := look(t, data)
	if (v.Refusal != "") != refused {
		t.Errorf("refusal %q", v.Refusal)
	}
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := strings.TrimSuffix(file, ".sip") + ".json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLimits(t *testing.T) {
	message := func(headers, body string) []byte {
		return fmt.Appendf(nil, "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n%s\r\n%s", headers, body)
	}
	tests := []struct {
		name    string
		data    []byte
		refusal string
	}{
		{"headers at the limit", message(strings.Repeat("X: y\r\n", maxHeaders-5), ""), ""},
		{"too many headers", message(strings.Repeat("X: y\r\n", maxHeaders-4), ""), "Too Many Headers"},
		{"line at the limit", message("X: "+strings.Repeat("y", maxHeaderLine-3)+"\r\n", ""), ""},
		{"line too long", message("X: "+strings.Repeat("y", maxHeaderLine-2)+"\r\n", ""), "Header Line Too Long"},
		{"folded line too long", message("X: "+strings.Repeat("y\r\n ", maxHeaderLine/2)+"\r\n", ""), "Header Line Too Long"},
		{"body at the limit", message("", strings.Repeat("b", 1000)), ""},
		{"body too large", message("", strings.Repeat("b", 1001)), "Request Entity Too Large"},
		{"message too large", message("", strings.Repeat("b", MaxMessage)), "Message Too Large"},
		{"nothing", nil, "No End Of Headers"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, refusal := Parse(test.data, 1000)
			if got := fmt.Sprint(refusal); refusal == nil && test.refusal != "" || refusal != nil && got != test.refusal {
				t.Errorf("refusal %q, want %q", got, test.refusal)
			}
		})
	}
}

func TestParseURI(t *testing.T) {
	tests := []struct{ uri, address string }{ // empty: refused
		{"sip:1002@sip.example.com", "1002@sip.example.com"},
		{"SIP:1002@Sip.Example.COM:5060;transport=udp?x=y", "1002@sip.example.com"},
		{"sip:%61b%2Fc@h", "ab/c@h"},
		{"sip:a;b=c@h", "a;b=c@h"},
		{"sip:a@[2001:db8::1]:5060", "a@[2001:db8::1]"},
		{"sip:+44-(0)20.7946;x=y@h;user=phone", "+440207946@h"},
		{"sip:%2B44-20@h;user=Phone", "+4420@h"},
		{"sip:+44-20@h", "+44-20@h"}, {"sip:a-b@h;user=phone", "a-b@h"}, {"sip:+44-20@h;user=ip", "+44-20@h"},
		{"sip:a%40b@h", ""},
		{"sip:a%0d%0aX@h", ""}, {"sip:a%00@h", ""}, {"sip:a@h@i", ""}, {"sip:a:b@h", ""}, {"sip:a@[::1]x", ""}, {"sip:a[@h", ""},
		{"sip:a@h:99999", ""}, {"sip:a@h:x", ""}, {"sip:@h", ""}, {"sip:a@", ""}, {"sip://a@h", ""}, {"sip:a b@h", ""},
		{"sip:ä@h", ""}, {"sip:", ""}, {"", ""}, {"*", ""}, {"tel:1", ""}, {"sips:a@h", "a@h"}, {"SIPS:a@h", "a@h"}, {"sips:", ""}, {"sip:a\"@h", ""}, {"sip:a@h\"", ""},
	}
	for _, test := range tests {
		u, err := ParseURI(test.uri)
		got := ""
		if err == nil {
			if a, err := Address(u); err == nil {
				got = a.String()
			}
		}
		if got != test.address {
			t.Errorf("%q: %q (%v), want %q", test.uri, got, err, test.address)
		}
	}
}

func TestTargetURI(t *testing.T) {
	for uri, address := range map[string]string{ // empty: refused
		"sip:1002@sip.example.com": "1002@sip.example.com",
		"tel:+447700900123":        "+447700900123", "TEL:+44-(0)7700.900-123": "+4407700900123", "tel:2424": "2424",
		"tel:863-1234;phone-context=+1-914-555": "8631234", "tel:+1555;ext=12;isub=%41": "+1555",
		"tel:": "", "tel:+": "", "tel:()": "", "tel:++1": "", "tel:1+2": "", "tel:1a": "", "tel:*69": "", "tel:%2B1": "", "tel:+1;x=%zz": "",
		"tel:+1;x=\"": "", "tel:+1@h": "", "tel:" + strings.Repeat("1", 33): "", "tel": "", "sips:a@h": "a@h", "mailto:a@b": "",
	} {
		u, err := parseTarget(uri)
		got := ""
		if err == nil {
			a, err := Address(u)
			if err != nil {
				t.Errorf("%s: %v", uri, err)
			}
			got = a.String()
		}
		if got != address {
			t.Errorf("%q: %q (%v), want %q", uri, got, err, address)
		}
	}
}

func TestRequestURI(t *testing.T) {
	for contact, want := range map[string]string{
		"sip:a@h":                        "sip:a@h",
		"sip:a@h:5070;transport=tcp?s=x": "sip:a@h:5070;transport=tcp",
		"sip:a?b@h?Route=%3Csip:e%3E&x=": "sip:a?b@h",
		"sip:h?x=y":                      "sip:h",
	} {
		if got := RequestURI(contact); got != want {
			t.Errorf("%s: %s", contact, got)
		}
	}
}

func TestAddressIsUTF8(t *testing.T) {
	for text, ok := range map[string]bool{"sip:%C3%A4@h": true, "sip:%ff@h": false, "sip:a%40b@h": false, "sip:%0d@h": false} {
		u, err := ParseURI(text)
		if err != nil {
			t.Fatal(text, err)
		}
		if _, err := Address(u); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAddressSurvives(t *testing.T) {
	for _, user := range []string{"1002", "a b", "ä", `a"b`, "a<b>", "%41", "a:b", "#+;?"} {
		u, err := ParseURI(string(AppendURI(nil, mustAddress(t, user), "h")))
		if err != nil {
			t.Errorf("%q: %v", user, err)
			continue
		}
		if got, err := Address(u); err != nil || got.User != user || got.Host != "h" {
			t.Errorf("%q became %q: %v", user, got, err)
		}
	}
}

// FuzzParse: whatever comes, there is no panic; and what passes the validator
// is the same to sipgo's parser, which is not strict, and survives our response.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.sip")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	table := newServerTable(testNow, 1, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, refusal := Parse(data, maxBody)
		if r == nil {
			return
		}
		r.Flow = testFlow
		if hop, ok := r.Behind(); ok && (!hop.Address.IsValid() || !IsToken(hop.Transport)) {
			t.Fatalf("%q came from %v", data, hop)
		}
		reply, err := AppendReply(nil, r, Reply{Status: 202}, table.tag(table.key(r)))
		if err != nil {
			t.Fatalf("no response to %q: %v", data, err)
		}
		_, answer, refused := Parse(reply, maxBody)
		if refusal == nil && (refused != nil || answer.Branch != r.Via.Branch || answer.CSeq != r.CSeq) {
			t.Fatalf("response %q: %v", reply, refused)
		}
		if refusal == nil {
			sameToSipgo(t, r, data)
		}
	})
}

func sameToSipgo(t *testing.T, r *Request, data []byte) {
	parsed, err := sip.ParseMessage(bytes.TrimLeft(data, "\r\n"))
	if err != nil {
		return // it is stricter in places, such as long URIs of IPv6
	}
	other, ok := parsed.(*sip.Request)
	if !ok {
		t.Fatalf("not a request to sipgo: %q", data)
	}
	if string(*other.CallID()) != r.CallID || other.CSeq().SeqNo != r.CSeq || r.URI.Scheme != "tel" && (other.Recipient.Host != r.URI.Host || other.Recipient.User != r.URI.User) {
		t.Fatalf("sipgo reads %q %v %v, we read %q %d %v", *other.CallID(), other.CSeq().SeqNo, other.Recipient, r.CallID, r.CSeq, r.URI)
	}
	if u, err := ParseURI(r.From.URI); err == nil && other.From() != nil && r.From.Display == "" && other.From().Address.Host != u.Host {
		t.Fatalf("sipgo reads From %v, we read %v", other.From().Address, u)
	}
}
