package translate

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/linxGnu/gosmpp/data"
	gopdu "github.com/linxGnu/gosmpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

var theirs = map[string]data.Encoding{
	strings.Repeat("Grüße @ {5} €, ", 30): data.GSM7BIT,
	strings.Repeat("Привет 😀 ", 40):       data.UCS2,
	"garçon":                              data.LATIN1,
}

// TestWeReadGosmpp: long texts that gosmpp has cut.
func TestWeReadGosmpp(t *testing.T) {
	for words, encoding := range theirs {
		parts, err := gopdu.NewLongMessageWithEncoding(words, encoding)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for i, part := range parts {
			p := gopdu.NewSubmitSM().(*gopdu.SubmitSM)
			p.SourceAddr, p.DestAddr, p.Message = address(t, "447700900001"), address(t, "447700900002"), *part
			if len(parts) > 1 {
				p.EsmClass = esmUDHI
			}
			frame := gopdu.NewBuffer(nil)
			p.Marshal(frame)
			read, err := wire.Decode(frame.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			in, err := dialect(nil).Incoming(read, now)
			if err != nil {
				t.Fatal(err)
			}
			if in.Part != nil && (int(in.Part.Number) != i+1 || int(in.Part.Total) != len(parts)) || (in.Part == nil) != (len(parts) == 1) {
				t.Errorf("part %d of %d is %+v", i+1, len(parts), in.Part)
			}
			got.Write(in.Message.Body)
		}
		if got.String() != words {
			t.Errorf("%q, want %q", got.String(), words)
		}
	}
}

func address(t *testing.T, number string) gopdu.Address {
	t.Helper()
	a, err := gopdu.NewAddressWithTonNpiAddr(1, 1, number)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestGosmppReadsUs: it knows only the 8-bit reference.
func TestGosmppReadsUs(t *testing.T) {
	d := dialect(func(d *Dialect) { d.Text.Long = text.LongUDH })
	for words, encoding := range theirs {
		if encoding == data.LATIN1 {
			continue // we write it in UCS-2
		}
		parts, err := d.outgoing(hello(func(m *message.Message) { m.Body = []byte(words) }), route, pdu.SubmitSMID, now)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for i := range parts {
			p, err := gopdu.Parse(bytes.NewReader(encode(t, &parts[i])))
			if err != nil {
				t.Fatal(err)
			}
			submit := p.(*gopdu.SubmitSM)
			part, err := submit.Message.GetMessageWithEncoding(encoding)
			if err != nil {
				t.Fatal(err)
			}
			total, number, _, found := submit.Message.UDH().GetConcatInfo()
			if found != (len(parts) > 1) || found && (int(total) != len(parts) || int(number) != i+1) {
				t.Errorf("part %d of %d reads as %d of %d", i+1, len(parts), number, total)
			}
			got.WriteString(part)
		}
		if got.String() != words {
			t.Errorf("%q, want %q", got.String(), words)
		}
	}
}
