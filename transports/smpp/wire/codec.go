package wire

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// Decode reads one whole PDU, header and all. It is strict: each parameter is
// there and within its length, and nothing follows but whole TLVs. Of a
// response, its status counts, which stands in the header: what can't be read
// behind that is left out, so that a message that was taken isn't sent again
// because of how that was said. A name may be without its NUL, and TLVs without a
// body.
//
// Text and the values of TLVs are slices of frame, which must not change any
// more. An error is an *Error; the packet's header is there even then, but for
// a frame of under 16 octets.
func Decode(frame []byte) (Packet, error) {
	if len(frame) < pdu.HeaderLen {
		return Packet{}, &Error{RInvCmdLen, "the PDU has no whole header"}
	}
	p := decodeHeader(frame)
	if int64(binary.BigEndian.Uint32(frame)) != int64(len(frame)) {
		return p, &Error{RInvCmdLen, "command_length is not the length of the PDU"}
	}
	k := kindOf(p.ID)
	if k == unknownKind {
		return p, &Error{RInvCmdID, "unknown command_id"}
	}
	rest := frame[pdu.HeaderLen:]
	if p.IsResponse() {
		p.decodeResponse(rest, known[k].layout)
		return p, nil
	}
	return p, p.decodeBody(rest, known[k].layout)
}

func decodeHeader(frame []byte) Packet {
	return Packet{
		ID:       pdu.ID(binary.BigEndian.Uint32(frame[4:])),
		Status:   pdu.Status(binary.BigEndian.Uint32(frame[8:])),
		Sequence: binary.BigEndian.Uint32(frame[12:]),
	}
}

// decodeBody reads the mandatory parameters, if the layout has any, and the TLVs.
func (p *Packet) decodeBody(b []byte, l *layout) (err error) {
	var body Body
	if l != nil {
		if body, b, err = l.decode(p.ID, b); err != nil {
			return err
		}
	}
	t, err := decodeTLVs(b)
	if err != nil {
		return err
	}
	p.Body, p.TLVs = body, t
	return nil
}

// decodeResponse reads as much as there is to read.
func (p *Packet) decodeResponse(b []byte, l *layout) {
	if len(b) == 0 || p.decodeBody(b, l) == nil {
		return
	}
	if bytes.IndexByte(b, 0) < 0 && p.decodeBody(append(b[:len(b):len(b)], 0), l) == nil {
		return
	}
	if p.decodeBody(b, nil) == nil || l == nil {
		return
	}
	if body, _, err := l.decode(p.ID, b); err == nil {
		p.Body = body
	}
}

// Encode appends a PDU to dst. It is as strict as Decode, without what that
// forgives: a response may leave its body out, but not if it has TLVs. An error
// is an *Error; dst is returned as it was.
func Encode(dst []byte, p *Packet) ([]byte, error) {
	k := kindOf(p.ID)
	if k == unknownKind {
		return dst, &Error{RInvCmdID, "unknown command_id"}
	}
	start := len(dst)
	b := append(dst, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(p.ID))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Status))
	b = binary.BigEndian.AppendUint32(b, p.Sequence)
	b, err := p.appendBody(b, known[k].layout)
	if err != nil {
		return dst, err
	}
	if b, err = appendTLVs(b, p.TLVs); err != nil {
		return dst, err
	}
	if len(b)-start > math.MaxInt32 {
		return dst, &Error{RInvCmdLen, "the PDU is too long"}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b, nil
}

func (p *Packet) appendBody(b []byte, l *layout) ([]byte, error) {
	switch {
	case p.Body == nil && (l == nil || p.IsResponse() && len(p.TLVs) == 0):
		return b, nil
	case p.Body == nil || l == nil || p.Body.id() != p.ID:
		return b, &Error{RInvCmdID, "the body is not that of the command_id"}
	}
	return l.encode(b, p.Body)
}
