package content

import (
	"bytes"
	"encoding/xml"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// asks is an envelope whose sender asks for IMDNs.
const asks = "From: Alice <im:alice@example.com>\r\nTo: <im:bob@example.com>\r\nNS: i <urn:ietf:params:imdn>\r\ni.Message-ID: abc\r\n" +
	"i.Disposition-Notification: positive-delivery;x=y,Negative-Delivery , display\r\n\r\n"

// imdn is a notification without its envelope.
const imdn = `<imdn xmlns="urn:ietf:params:xml:ns:imdn"><message-id>abc</message-id><delivery-notification><status><delivered/></status></delivery-notification></imdn>`

func mixed(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--b\r\n" + p + "\r\n")
	}
	return b.String() + "--b--\r\n"
}

const mixedType = "multipart/mixed; boundary=b"

func TestExamine(t *testing.T) {
	const composing = "Content-Type: application/im-iscomposing+xml\r\n\r\n<isComposing/>"
	imdnPart := "Content-Type: message/imdn+xml\r\n\r\n" + imdn
	large := strings.Replace(imdn, "<delivery", strings.Repeat(" ", maxNotice)+"<delivery", 1)
	for name, test := range map[string]struct {
		contentType, body string
		want              Facts
	}{
		"plain":                            {"text/plain", imdn, Facts{}},
		"an IMDN":                          {"Message/IMDN+xml;charset=utf-8", imdn, Facts{Class: message.Notification}},
		"an IMDN that is none":             {TypeIMDN, "buy gold", Facts{}},
		"an IMDN without end":              {TypeIMDN, large, Facts{}},
		"typing":                           {TypeComposing, "<isComposing/>", Facts{Class: message.Composing}},
		"typing a letter":                  {TypeComposing, strings.Repeat("a", maxNotice+1), Facts{}},
		"wants":                            {TypeCPIM, asks + "\r\nx", Facts{Inner: TypePlain, Wants: message.ReportEnd}},
		"wants, of html":                   {TypeCPIM, asks + "Content-Type: Text/HTML\r\n\r\nx", Facts{Inner: "text/html", Wants: message.ReportEnd}},
		"wants the delivery":               {TypeCPIM, strings.Replace(asks, ",Negative-Delivery", "", 1) + "\r\nx", Facts{Inner: TypePlain, Wants: message.ReportDelivery}},
		"wants on two lines":               {TypeCPIM, strings.Replace(asks, ",Negative", "\r\ni.Disposition-Notification: Negative", 1) + "\r\nx", Facts{Inner: TypePlain, Wants: message.ReportEnd}},
		"wants, without a name":            {TypeCPIM, strings.Replace(asks, "i.Message-ID", "i.X", 1) + "\r\nx", Facts{Inner: TypePlain}},
		"wants in another name space":      {TypeCPIM, strings.Replace(asks, "urn:ietf", "urn:x", 1) + "\r\nx", Facts{Inner: TypePlain}},
		"wants nothing":                    {TypeCPIM, cpim + "\r\nx", Facts{Inner: TypePlain}},
		"an IMDN never wants":              {TypeCPIM, asks + imdnPart, Facts{Class: message.Notification, Inner: TypeIMDN}},
		"nor does typing":                  {TypeCPIM, asks + composing, Facts{Class: message.Composing, Inner: TypeComposing}},
		"a false IMDN does":                {TypeCPIM, asks + "Content-Type: message/imdn+xml\r\n\r\nx", Facts{Inner: TypeIMDN, Wants: message.ReportEnd}},
		"an IMDN in base64":                {TypeCPIM, cpim + "Content-Type: message/imdn+xml\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.ReplaceAll(imdn, "=", "=3D"), Facts{Class: message.Notification, Inner: TypeIMDN}},
		"an IMDN, deflated":                {TypeCPIM, cpim + "Content-Type: message/imdn+xml\r\nContent-Encoding: deflate\r\n\r\n" + string(compressed(t, "deflate", []byte(imdn))), Facts{Class: message.Notification, Inner: TypeIMDN}},
		"an IMDN in two envelopes":         {TypeCPIM, cpim + "Content-Type: message/cpim\r\n\r\n" + cpim + imdnPart, Facts{Class: message.Notification, Inner: TypeCPIM}},
		"an envelope that can't be read":   {TypeCPIM, "x", Facts{}},
		"IMDNs":                            {mixedType, mixed(imdnPart, imdnPart), Facts{Class: message.Notification}},
		"IMDNs in an envelope":             {TypeCPIM, asks + "Content-Type: " + mixedType + "\r\n\r\n" + mixed(imdnPart, imdnPart), Facts{Class: message.Notification, Inner: "multipart/mixed"}},
		"an IMDN, and a letter":            {mixedType, mixed(imdnPart, "\r\nhello"), Facts{}},
		"a letter, and an IMDN":            {mixedType, mixed("\r\nhello", imdnPart), Facts{}},
		"an IMDN, and typing":              {mixedType, mixed(imdnPart, composing), Facts{}},
		"no parts":                         {mixedType, "--b--", Facts{}},
		"parts without end":                {mixedType, "--b\r\n" + imdnPart, Facts{}},
		"as many parts as there may be":    {mixedType, mixed(slicesOf(imdnPart, maxParts)...), Facts{Class: message.Notification}},
		"one more":                         {mixedType, mixed(slicesOf(imdnPart, maxParts+1)...), Facts{}},
		"an alternative isn't looked into": {"multipart/alternative; boundary=b", mixed(imdnPart), Facts{}},
		"another type":                     {"application/vnd.acrobits.filetransfer+json", "{}", Facts{}},
		"no type":                          {"", "", Facts{}},
	} {
		if got := Examine(test.contentType, []byte(test.body)); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func slicesOf(s string, n int) []string {
	return strings.Split(strings.TrimSuffix(strings.Repeat(s+"\x00", n), "\x00"), "\x00")
}

func TestExamineIsFreeForText(t *testing.T) {
	body := []byte("hello")
	if n := testing.AllocsPerRun(100, func() { Examine("text/plain;charset=utf-8", body) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNotify(t *testing.T) {
	done := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	one, first, ok := Notify([]byte(asks+"\r\nx"), message.ReceiptDelivered, done)
	_, same, _ := Notify([]byte(asks+"\r\nx"), message.ReceiptDelivered, done)
	_, other, _ := Notify([]byte(asks+"\r\ny"), message.ReceiptDelivered, done)
	if !ok || one != TypeCPIM || !bytes.Equal(first, same) || parsed(t, first).messageID() == parsed(t, other).messageID() || len(parsed(t, first).messageID()) != 32 {
		t.Errorf("%t %q\n%q\n%q", ok, first, same, other)
	}
	if facts := Examine(TypeCPIM, first); facts != (Facts{Class: message.Notification, Inner: TypeIMDN}) {
		t.Errorf("%+v", facts)
	}
	c := parsed(t, first)
	told, err := ParseIMDN(c.Body)
	want := &IMDN{MessageID: "abc", DateTime: done.Truncate(time.Second), RecipientURI: "im:bob@example.com", Status: StatusDelivered}
	if err != nil || !reflect.DeepEqual(told, want) || c.From.URI != "im:bob@example.com" || !reflect.DeepEqual(c.To, []Party{{"Alice", "im:alice@example.com"}}) {
		t.Errorf("%+v %+v, %v", c, told, err)
	}
	if _, _, ok := Notify(first, message.ReceiptFailed, done); ok {
		t.Error("a notification of a notification")
	}
}

func parsed(t *testing.T, b []byte) *CPIM {
	t.Helper()
	c, err := ParseCPIM(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNotifyNobody(t *testing.T) {
	for name, body := range map[string]string{
		"not an envelope": "hello",
		"no sender":       strings.Replace(asks, "From: Alice <im:alice@example.com>", "From: Alice", 1) + "\r\nx",
		"no recipient":    strings.Replace(asks, "To:", "cc:", 1) + "\r\nx",
		"whom nobody is":  strings.Replace(asks, "<im:bob@example.com>", "Bob", 1) + "\r\nx",
		"no name":         strings.Replace(asks, "Message-ID", "X", 1) + "\r\nx",
		"an IMDN":         asks + "Content-Type: message/imdn+xml\r\n\r\n" + imdn,
		"typing":          asks + "Content-Type: application/im-iscomposing+xml\r\n\r\n<x/>",
	} {
		if _, b, ok := Notify([]byte(body), message.ReceiptFailed, time.Unix(0, 0)); ok || b != nil {
			t.Errorf("%s: %q", name, b)
		}
	}
}

func TestParseIMDN(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":         "",
		"not XML":         "delivered",
		"another root":    "<a>" + imdn + "</a>",
		"no end":          strings.TrimSuffix(imdn, "</imdn>"),
		"no message":      strings.Replace(imdn, "abc", " ", 1),
		"no status":       strings.Replace(imdn, "<delivered/>", "", 1),
		"an extension":    strings.Replace(imdn, "<delivered/>", `<delivered xmlns="urn:x"/>`, 1),
		"too long":        imdn + strings.Repeat(" ", maxNotice),
		"a document type": `<!DOCTYPE imdn [<!ENTITY a "aaaaaaaaaa">]>` + strings.Replace(imdn, "abc", "&a;", 1),
		"an entity":       strings.Replace(imdn, "abc", "&a;", 1),
		"deep":            strings.Repeat("<imdn>", 1300),
		"another charset": `<?xml version="1.0" encoding="utf-16"?>` + imdn,
	} {
		if m, err := ParseIMDN([]byte(body)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for name, body := range map[string]string{
		"as it is":           imdn,
		"without name space": strings.Replace(imdn, ` xmlns="urn:ietf:params:xml:ns:imdn"`, "", 1),
		"with an extension":  strings.Replace(imdn, "<delivered/>", `<x xmlns="urn:x">y</x><delivered/><failed/>`, 1),
		"with a time":        strings.Replace(imdn, "<delivery", "<datetime>2020-07-07T14:32:00+0000</datetime><delivery", 1), // not RFC 3339's, but seen
		"with a subject":     strings.Replace(imdn, "<delivery", "<subject>&lt;</subject><!-- a --><delivery", 1),
	} {
		if m, err := ParseIMDN([]byte(body)); err != nil || m.MessageID != "abc" || m.Status != StatusDelivered || m.Kind != Delivery || !m.DateTime.IsZero() {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// TestIMDNRoundTrip: what is written is read as it was, and is nothing but XML.
func TestIMDNRoundTrip(t *testing.T) {
	const evil = `</message-id><status>]]>&a;<!--"'`
	for _, status := range []string{StatusDelivered, StatusFailed, StatusDisplayed, StatusProcessed, StatusStored, StatusForbidden, StatusError} {
		for _, kind := range []Disposition{Delivery, Display, Processing} {
			m := &IMDN{MessageID: evil, DateTime: time.Unix(1, 0).UTC(), RecipientURI: evil, OriginalRecipientURI: evil, Kind: kind, Status: status}
			if got, err := ParseIMDN(m.Append(nil)); err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
	m, err := ParseIMDN((&IMDN{MessageID: "a\x00b", Kind: 9, Status: "x><y"}).Append(nil))
	if err != nil || m.Kind != Delivery || m.Status != StatusError || m.MessageID != "a\uFFFDb" || !m.DateTime.IsZero() {
		t.Errorf("%+v, %v", m, err)
	}
}

// FuzzIMDN: nothing panics, and what can be read is the same once it is written.
func FuzzIMDN(f *testing.F) {
	f.Add([]byte(imdn))
	f.Add([]byte(strings.Replace(imdn, "delivery", "processing", 2)))
	f.Add([]byte(`<?xml version="1.0"?><imdn><message-id>a</message-id><display-notification><status><b:c xmlns:b="u"/><displayed/></status></display-notification></imdn>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := ParseIMDN(body)
		if err != nil {
			return
		}
		if !isStatus(m.Status) {
			m.Status = StatusError
		}
		once := m.Append(nil)
		if err := xml.Unmarshal(once, new(struct{})); err != nil {
			t.Fatalf("%v: %q", err, once)
		}
		again, err := ParseIMDN(once)
		if err != nil && len(once) <= maxNotice || err == nil && !bytes.Equal(again.Append(nil), once) {
			t.Errorf("%v: %q", err, once)
		}
	})
}

// FuzzExamine: nothing panics, and an IMDN never wants one.
func FuzzExamine(f *testing.F) {
	f.Add(TypeCPIM, []byte(asks+"Content-Type: message/imdn+xml\r\n\r\n"+imdn))
	f.Add(mixedType, []byte(mixed("Content-Type: message/imdn+xml\r\n\r\n"+imdn, "\r\nx")))
	f.Add("multipart/related; boundary=b", []byte(mixed("Content-Type: "+mixedType+"\r\n\r\n"+mixed("\r\nx"))))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		facts := Examine(contentType, body)
		if facts.Class != message.Text && facts.Wants != message.ReportNothing {
			t.Errorf("%+v", facts)
		}
		_, b, ok := Notify(body, message.ReceiptFailed, time.Unix(0, 0))
		if ok && Examine(TypeCPIM, b) != (Facts{Class: message.Notification, Inner: TypeIMDN}) && len(b) < maxHead {
			t.Errorf("%q", b)
		}
	})
}

func BenchmarkExamine(b *testing.B) {
	for name, body := range map[string][]byte{"text": sample(b, "linphone-text.cpim"), "imdn": sample(b, "linphone-delivered.cpim")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Examine(TypeCPIM, body)
			}
		})
	}
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Examine("text/plain;charset=utf-8", nil)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := compressed(b, "deflate", sample(b, "linphone-delivered.cpim"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode("deflate", body, 64<<10); err != nil {
			b.Fatal(err)
		}
	}
}
