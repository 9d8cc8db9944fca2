package wire

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// Tags that pdutlv doesn't have.
const (
	TagScInterfaceVersion pdutlv.Tag = 0x0210 // of a bind's response (SMPP 3.4 §5.3.2.25)
	TagCongestionState    pdutlv.Tag = 0x0428 // 0 to 99 (SMPP 5.0 §4.8.4.18)
)

// maxTLVs is how many optional parameters a PDU may have; SMPP 3.4 knows 44.
const maxTLVs = 256

// TLVs are a PDU's optional parameters in their order. A tag may be there more
// than once: Get, Uint and Text find the first.
type TLVs []TLV

// TLV is an optional parameter (SMPP 3.4 §3.2.4).
type TLV struct {
	Tag   pdutlv.Tag
	Value []byte // at most 65,535 octets
}

// Get returns the value of a tag: not nil if the tag is there.
func (t TLVs) Get(tag pdutlv.Tag) ([]byte, bool) {
	for i := range t {
		if t[i].Tag == tag {
			return t[i].Value, true
		}
	}
	return nil, false
}

// Uint returns the value of a tag that has one to four octets as a number.
func (t TLVs) Uint(tag pdutlv.Tag) (uint32, bool) {
	value, _ := t.Get(tag)
	if len(value) == 0 || len(value) > 4 {
		return 0, false
	}
	var n uint32
	for _, octet := range value {
		n = n<<8 | uint32(octet)
	}
	return n, true
}

// Text returns the value of a tag as a string: up to its first NUL, which a
// C-octet string has and some peers leave out.
func (t TLVs) Text(tag pdutlv.Tag) (string, bool) {
	value, ok := t.Get(tag)
	text, _, _ := strings.Cut(string(value), "\x00")
	return text, ok
}

// Uint8 makes a TLV whose value is one octet.
func Uint8(tag pdutlv.Tag, n uint8) TLV { return TLV{tag, []byte{n}} }

// Uint16 makes a TLV whose value is a number of two octets.
func Uint16(tag pdutlv.Tag, n uint16) TLV {
	return TLV{tag, binary.BigEndian.AppendUint16(nil, n)}
}

// Uint32 makes a TLV whose value is a number of four octets.
func Uint32(tag pdutlv.Tag, n uint32) TLV {
	return TLV{tag, binary.BigEndian.AppendUint32(nil, n)}
}

// Text makes a TLV whose value is a C-octet string: s, which has no NUL, with
// one behind it.
func Text(tag pdutlv.Tag, s string) TLV { return TLV{tag, append([]byte(s), 0)} }

// decodeTLVs reads what follows the mandatory parameters to the end. The values
// are slices of b.
func decodeTLVs(b []byte) (TLVs, error) {
	if len(b) == 0 {
		return nil, nil
	}
	n, err := countTLVs(b)
	if err != nil {
		return nil, err
	}
	t := make(TLVs, n)
	for i := range t {
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		t[i] = TLV{pdutlv.Tag(binary.BigEndian.Uint16(b)), b[4:end:end]}
		b = b[end:]
	}
	return t, nil
}

// countTLVs counts the TLVs and checks that they are whole.
func countTLVs(b []byte) (int, error) {
	n := 0
	for ; len(b) > 0; n++ {
		if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint16(b[2:])) {
			return 0, &Error{RInvOptParStream, "the end of the PDU is not a whole TLV"}
		}
		b = b[4+int(binary.BigEndian.Uint16(b[2:])):]
	}
	if n > maxTLVs {
		return 0, &Error{RInvOptParStream, "too many TLVs"}
	}
	return n, nil
}

func appendTLVs(dst []byte, t TLVs) ([]byte, error) {
	if len(t) > maxTLVs {
		return dst, &Error{RInvOptParStream, "too many TLVs"}
	}
	for i := range t {
		if len(t[i].Value) > math.MaxUint16 {
			return dst, &Error{RInvParLen, "the TLV 0x" + t[i].Tag.Hex() + " is too long"}
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(t[i].Tag))
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(t[i].Value)))
		dst = append(dst, t[i].Value...)
	}
	return dst, nil
}
