package translate

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden are messages by the name of the file that has their PDUs, one a line.
var golden = map[string]struct {
	of      pdu.ID
	dialect func(*Dialect)
	message func(*message.Message)
}{
	"submit_gsm7":  {pdu.SubmitSMID, nil, saying("Grüße @ 5 €")},
	"submit_ucs2":  {pdu.SubmitSMID, nil, saying("Привет 😀")},
	"submit_empty": {pdu.SubmitSMID, nil, saying("")},
	"submit_latin1": {pdu.SubmitSMID, func(d *Dialect) {
		d.Text.Alphabets, d.ServiceType, d.Receipts, d.Validity = []plugin.Alphabet{plugin.Latin1}, "CMT", ReceiptsFailure, ValidityAbsolute
	}, saying("garçon")},
	"submit_turkish": {pdu.SubmitSMID, func(d *Dialect) {
		d.Text.Alphabets, d.Text.National = []plugin.Alphabet{plugin.GSM7National}, []string{"turkish"}
	}, saying("Ağustos")},
	"submit_payload":   {pdu.SubmitSMID, nil, saying(strings.Repeat("0123456789", 26))},
	"submit_udh":       {pdu.SubmitSMID, func(d *Dialect) { d.Text.Long = text.LongUDH }, saying(strings.Repeat("0123456789", 17))},
	"submit_udh16":     {pdu.SubmitSMID, func(d *Dialect) { d.Text.Long = text.LongUDH16 }, saying(strings.Repeat("ж", 80))},
	"submit_sar":       {pdu.SubmitSMID, func(d *Dialect) { d.Text.Long = text.LongSAR }, saying(strings.Repeat("0123456789", 17))},
	"submit_3.3":       {pdu.SubmitSMID, func(d *Dialect) { d.Version = Version33 }, saying(strings.Repeat("0123456789", 17) + "€")},
	"submit_wap_push":  {pdu.SubmitSMID, nil, binary("\x01\x06\x00\xff")},
	"data_sm":          {pdu.DataSMID, nil, saying("hello")},
	"deliver_sm":       {pdu.DeliverSMID, nil, saying("hello")},
	"deliver_sm_reply": {pdu.DeliverSMID, nil, acknowledges("hello")},
}

func saying(s string) func(*message.Message) {
	return func(m *message.Message) { m.ContentType, m.Body = typeText, []byte(s) }
}

func binary(octets string) func(*message.Message) {
	return func(m *message.Message) {
		m.ContentType, m.Body = typeBinary, []byte(octets)
		m.Headers = []message.Header{{Name: headerDataCoding, Value: "245"}, {Name: headerUDH, Value: "05040b8423f0"}}
	}
}

func acknowledges(s string) func(*message.Message) {
	return func(m *message.Message) {
		saying(s)(m)
		m.Headers = []message.Header{{Name: headerESMClass, Value: "136"}}
	}
}

// TestGolden: messages are written as the files have it, and these read as the
// messages.
func TestGolden(t *testing.T) {
	for name, c := range golden {
		t.Run(name, func(t *testing.T) {
			d := dialect(c.dialect)
			m := hello(func(m *message.Message) {
				m.From = message.Address{User: "+447700900001", Host: d.Domain}
				c.message(m)
			})
			parts, err := d.outgoing(m, route, c.of, now)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".hex")
			if *update {
				write(t, path, parts)
			}
			frames := framesOf(t, path)
			compare(t, parts, frames)
			var body []byte
			for _, frame := range frames {
				p, err := wire.Decode(frame)
				if err != nil {
					t.Fatal(err)
				}
				in, err := d.Incoming(p, now)
				if err != nil {
					t.Fatal(err)
				}
				body = append(body, in.Message.Body...)
				got := in.Message
				if got.From != m.From || got.Recipient.User != m.Recipient.User || got.ContentType != m.ContentType || !slices.Equal(got.Headers, m.Headers) {
					t.Errorf("%+v", got)
				}
			}
			if !bytes.Equal(body, m.Body) {
				t.Errorf("%q, want %q", body, m.Body)
			}
		})
	}
}

// TestGoldenReceipts is the same of the receipts that we write.
func TestGoldenReceipts(t *testing.T) {
	r := Report{
		MessageID: "1a2b3c4d", State: Delivered, Submitted: now, Done: now.Add(time.Minute),
		Source: wire.Address{TON: 5, Number: "ACME"}, Destination: wire.Address{TON: 1, NPI: 1, Number: "447700900002"}, Text: "Hello Bob",
	}
	for name, change := range map[string]func(*Dialect){
		"receipt":     nil,
		"receipt_3.3": func(d *Dialect) { d.Version = Version33 },
	} {
		d := dialect(change)
		path := filepath.Join("testdata", name+".hex")
		if *update {
			write(t, path, []Outgoing{d.Report(r)})
		}
		frames := framesOf(t, path)
		compare(t, []Outgoing{d.Report(r)}, frames)
		p, err := wire.Decode(frames[0])
		if err != nil {
			t.Fatal(err)
		}
		in, err := d.Incoming(p, now)
		if err != nil || in.Receipt == nil || *in.Receipt != (Receipt{MessageID: "1a2b3c4d", State: Delivered, Final: true, Status: plugin.Status{Delivered: true}}) {
			t.Errorf("%s: %+v, %v", name, in.Receipt, err)
		}
	}
}

func encode(t *testing.T, o *Outgoing) []byte {
	t.Helper()
	frame, err := wire.Encode(nil, &wire.Packet{ID: o.Short.Of, Sequence: 1, Body: &o.Short, TLVs: o.TLVs})
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func write(t *testing.T, path string, parts []Outgoing) {
	t.Helper()
	var lines strings.Builder
	for i := range parts {
		lines.WriteString(hex.EncodeToString(encode(t, &parts[i])) + "\n")
	}
	if err := os.WriteFile(path, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func framesOf(t *testing.T, path string) [][]byte {
	t.Helper()
	lines, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for line := range strings.Lines(string(lines)) {
		frame, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, frame)
	}
	return frames
}

func compare(t *testing.T, parts []Outgoing, frames [][]byte) {
	t.Helper()
	if len(parts) != len(frames) {
		t.Fatalf("%d parts, want %d", len(parts), len(frames))
	}
	for i := range parts {
		if got := encode(t, &parts[i]); !bytes.Equal(got, frames[i]) {
			t.Errorf("part %d is\n%x, want\n%x", i+1, got, frames[i])
		}
	}
}
