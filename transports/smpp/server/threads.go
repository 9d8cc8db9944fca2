package server

import (
	"encoding/binary"
	"sync"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// threads tie the PDUs of a delivery to its reference while somebody watches, so
// that a message's packets can be found. They know a deliver_sm by its
// user_message_reference, which stands at its end.
type threads struct {
	mu         sync.Mutex
	deliveries map[uint16]*thread // under way
	sent       map[uint32]*thread // of these, what went out, by sequence number
}

type thread struct {
	reference string
	sequence  uint32 // 0: it hasn't gone out
}

// begin notes a delivery, until end.
func (t *threads) begin(mark uint16, reference string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deliveries == nil {
		t.deliveries, t.sent = map[uint16]*thread{}, map[uint32]*thread{}
	}
	t.deliveries[mark] = &thread{reference: reference}
}

func (t *threads) end(mark uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.deliveries[mark]; d != nil {
		delete(t.sent, d.sequence)
		delete(t.deliveries, mark)
	}
}

// leave returns the reference of a deliver_sm that goes out; empty: it isn't known.
func (t *threads) leave(sequence uint32, frame []byte) string {
	const size = 6 // of the TLV
	if len(frame) < pdu.HeaderLen+size {
		return ""
	}
	tlv := frame[len(frame)-size:]
	if pdutlv.Tag(binary.BigEndian.Uint16(tlv)) != pdutlv.TagUserMessageReference || binary.BigEndian.Uint16(tlv[2:]) != 2 {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deliveries[binary.BigEndian.Uint16(tlv[4:])]
	if d == nil {
		return ""
	}
	d.sequence = sequence
	t.sent[sequence] = d
	return d.reference
}

// answered returns the reference of what a response is about; empty: it isn't
// known.
func (t *threads) answered(sequence uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.sent[sequence]; d != nil {
		return d.reference
	}
	return ""
}
