package wire

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// STUN, as far as keep-alives need it (RFC 5626 §4.4.2, RFC 8489): a Binding
// request is answered with the address that it came from, so that a client
// notices when its NAT has given it another.
const (
	stunHead    = 20 // octets
	stunCookie  = 0x2112A442
	stunRequest = 0x0001 // Binding
	stunSuccess = 0x0101
	stunError   = 0x0111

	stunErrorCode         = 0x0009
	stunUnknownAttributes = 0x000A
	stunXORMappedAddress  = 0x0020
	stunFingerprint       = 0x8028

	maxStunUnknown = 8 // attributes that are named in an answer
)

// isSTUN tells what can't be SIP, and is STUN or nothing (RFC 5626 §8: the first
// two bits are zero; the type of a message that we know has six such bits).
func isSTUN(data []byte) bool { return data[0] < 4 }

// receiveSTUN answers a Binding request. Whatever else comes is dropped.
func (e *Endpoint) receiveSTUN(s *socket, data []byte, source netip.AddrPort) {
	var room [128]byte
	answer := appendBinding(room[:0], data, source)
	if answer == nil {
		e.counters.malformed.Add(1)
		return
	}
	e.counters.bindings.Add(1)
	if s.send(answer, source) != nil {
		e.counters.writeErrors.Add(1)
	}
}

// appendBinding writes the answer to a Binding request; nil if it isn't a valid
// one. The answer is never more than 24 octets longer.
func appendBinding(b, request []byte, source netip.AddrPort) []byte {
	if len(request) < stunHead || len(request)%4 != 0 {
		return nil
	}
	length := int(binary.BigEndian.Uint16(request[2:]))
	if binary.BigEndian.Uint16(request) != stunRequest || binary.BigEndian.Uint32(request[4:]) != stunCookie || length != len(request)-stunHead {
		return nil
	}
	unknown, ok := stunUnknown(request)
	if !ok {
		return nil
	}
	if len(unknown) > 0 {
		return appendStunError(b, request, unknown)
	}
	return appendStunSuccess(b, request, source)
}

// stunUnknown returns the attributes that a server has to understand and that we
// don't know, at most maxStunUnknown. It returns false if there are no whole
// attributes, or a wrong fingerprint.
func stunUnknown(request []byte) (unknown []uint16, ok bool) {
	for rest := request[stunHead:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, false
		}
		kind, length := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := 4 + (length+3)&^3
		if padded > len(rest) {
			return nil, false
		}
		if kind == stunFingerprint {
			last := length == 4 && padded == len(rest)
			return unknown, last && binary.BigEndian.Uint32(rest[4:]) == fingerprint(request[:len(request)-len(rest)])
		}
		if isUnknownSTUN(kind) && len(unknown) < maxStunUnknown {
			unknown = append(unknown, kind)
		}
		rest = rest[padded:]
	}
	return unknown, true
}

// fingerprint is that of what precedes the attribute (RFC 8489 §14.7).
func fingerprint(before []byte) uint32 { return crc32.ChecksumIEEE(before) ^ 0x5354554e }

// isUnknownSTUN tells whether an attribute is one that has to be understood (the
// lower half) and that RFC 8489 §18.3 doesn't know. Those that it knows mean
// nothing to a server that asks for no credentials (§6.3.1).
func isUnknownSTUN(kind uint16) bool {
	switch kind {
	case 0x0001, 0x0006, 0x0008, stunErrorCode, stunUnknownAttributes, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E, stunXORMappedAddress:
		return false
	}
	return kind < 0x8000
}

func appendStunHead(b, request []byte, kind uint16, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return append(b, request[4:stunHead]...) // cookie and transaction
}

// appendStunSuccess tells where a request came from (RFC 8489 §14.2): the address
// is disguised from NATs that would rewrite it.
func appendStunSuccess(b, request []byte, source netip.AddrPort) []byte {
	family, address := byte(1), source.Addr().AsSlice()
	if len(address) == 16 {
		family = 2
	}
	b = appendStunHead(b, request, stunSuccess, 8+len(address))
	b = binary.BigEndian.AppendUint16(b, stunXORMappedAddress)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(address)))
	b = append(b, 0, family)
	b = binary.BigEndian.AppendUint16(b, source.Port()^stunCookie>>16)
	for i, octet := range address {
		b = append(b, octet^request[4+i])
	}
	return b
}

// appendStunError tells what was not understood (RFC 8489 §14.8, §14.9): 420,
// without a phrase.
func appendStunError(b, request []byte, unknown []uint16) []byte {
	padded := (2*len(unknown) + 3) &^ 3
	b = appendStunHead(b, request, stunError, 8+4+padded)
	b = binary.BigEndian.AppendUint16(b, stunErrorCode)
	b = append(b, 0, 4, 0, 0, 4, 20)
	b = binary.BigEndian.AppendUint16(b, stunUnknownAttributes)
	b = binary.BigEndian.AppendUint16(b, uint16(2*len(unknown)))
	for _, kind := range unknown {
		b = binary.BigEndian.AppendUint16(b, kind)
	}
	return append(b, make([]byte, padded-2*len(unknown))...)
}
