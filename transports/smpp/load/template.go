package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// firstRecipient is the first of the numbers that messages go to: a thousand that
// are nobody's.
const firstRecipient = 447700900000

// template is a submit_sm of which each message is a copy, with another sequence
// number, recipient and text.
type template struct {
	run         string
	size        int
	frame       []byte
	destination int // where the number of the recipient begins
	text        int // where the text begins, which is the end of the PDU
}

func newTemplate(run, from string, size int) (template, error) {
	recipient := strconv.Itoa(firstRecipient)
	frame, err := wire.Encode(nil, &wire.Packet{ID: pdu.SubmitSMID, Body: &wire.Short{
		Of:          pdu.SubmitSMID,
		Source:      wire.Address{TON: 1, NPI: 1, Number: from},
		Destination: wire.Address{TON: 1, NPI: 1, Number: recipient},
		Text:        bytes.Repeat([]byte("."), size),
	}})
	if err != nil {
		return template{}, fmt.Errorf("write a submit_sm: %w", err)
	}
	// The last one: the number of the sender may be the same.
	destination := bytes.LastIndex(frame, append([]byte(recipient), 0))
	return template{run: run, size: size, frame: frame, destination: destination, text: len(frame) - size}, nil
}

// append appends a submit_sm.
func (t *template) append(b []byte, sequence uint32, recipient, pair, number int) []byte {
	start := len(b)
	b = append(b, t.frame[:t.text]...)
	binary.BigEndian.PutUint32(b[start+12:], sequence)
	strconv.AppendInt(b[start+t.destination:start+t.destination], int64(firstRecipient+recipient), 10)
	return appendText(b, t.run, pair, number, t.size)
}
