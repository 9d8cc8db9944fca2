package wire

import (
	"encoding/binary"
	"sync"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// Threads tie the PDUs of a delivery on one session to its reference while
// somebody watches, so that a message's packets can be found. They know a
// submit_sm or deliver_sm by its user_message_reference (SMPP 3.4 §5.3.2.17),
// which must stand at its end. The zero value is ready.
type Threads struct {
	mu         sync.Mutex
	deliveries map[uint16]*thread // under way
	sent       map[uint32]*thread // of these, what went out last, by sequence number
}

type thread struct {
	reference string
	sequence  uint32 // 0: nothing has gone out
}

// Begin notes a delivery by its user_message_reference, until End.
func (t *Threads) Begin(mark uint16, reference string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deliveries == nil {
		t.deliveries, t.sent = map[uint16]*thread{}, map[uint32]*thread{}
	}
	t.deliveries[mark] = &thread{reference: reference}
}

// End forgets a delivery.
func (t *Threads) End(mark uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.deliveries[mark]; d != nil {
		delete(t.sent, d.sequence)
		delete(t.deliveries, mark)
	}
}

// Of returns the reference of the delivery that a PDU is of, which we have sent or
// got; empty: it is of none. frame is the whole of it.
func (t *Threads) Of(sent bool, frame []byte) string {
	if len(frame) < pdu.HeaderLen {
		return ""
	}
	id, sequence := pdu.ID(binary.BigEndian.Uint32(frame[4:])), binary.BigEndian.Uint32(frame[12:])
	switch {
	case sent && (id == pdu.SubmitSMID || id == pdu.DeliverSMID):
		return t.leave(sequence, frame)
	case !sent && ResponseTo(id) == id:
		return t.answered(sequence)
	}
	return ""
}

func (t *Threads) leave(sequence uint32, frame []byte) string {
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
	delete(t.sent, d.sequence) // of the part before, which was answered
	d.sequence = sequence
	t.sent[sequence] = d
	return d.reference
}

func (t *Threads) answered(sequence uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.sent[sequence]; d != nil {
		return d.reference
	}
	return ""
}
