package text

// Information elements that say which part a part is (3GPP TS 23.040 §9.2.3.24.1,
// §9.2.3.24.8).
const (
	elementConcat8  = 0x00
	elementConcat16 = 0x08
)

// headerLength is how many octets a user data header of these elements has.
func headerLength(elements []byte) int {
	if len(elements) == 0 {
		return 0
	}
	return 1 + len(elements)
}

// appendHeader appends a user data header.
func appendHeader(dst, first, others []byte) []byte {
	dst = append(dst, byte(len(first)+len(others)))
	dst = append(dst, first...)
	return append(dst, others...)
}

// header is a user data header that was read.
type header struct {
	concat          *Concat
	locking, single uint8  // languages of the tables
	others          []byte // all other elements
}

// parseHeader reads a user data header, and returns what is behind it. Of an
// element that is there twice the last counts (3GPP TS 23.040 §9.2.3.24).
func parseHeader(data []byte) (h header, rest []byte, err error) {
	if len(data) == 0 || len(data) < 1+int(data[0]) {
		return header{}, nil, ErrHeader
	}
	elements, rest := data[1:1+int(data[0])], data[1+int(data[0]):]
	for len(elements) > 0 {
		if len(elements) < 2 || len(elements) < 2+int(elements[1]) {
			return header{}, nil, ErrHeader
		}
		end := 2 + int(elements[1])
		if !h.take(elements[:end]) {
			return header{}, nil, ErrHeader
		}
		elements = elements[end:]
	}
	return h, rest, nil
}

// take reads an element; false: it can't be.
func (h *header) take(element []byte) bool {
	value := element[2:]
	switch element[0] {
	case elementConcat8:
		return len(value) == 3 && h.join(uint16(value[0]), value[1], value[2])
	case elementConcat16:
		return len(value) == 4 && h.join(uint16(value[0])<<8|uint16(value[1]), value[2], value[3])
	case elementSingleShift:
		if len(value) != 1 {
			return false
		}
		h.single = value[0]
	case elementLockingShift:
		if len(value) != 1 {
			return false
		}
		h.locking = value[0]
	default:
		h.others = append(h.others, element...)
	}
	return true
}

// join takes a part's number. One that can't be, such as 0 or 4 of 3, says nothing
// (3GPP TS 23.040 §9.2.3.24.1).
func (h *header) join(reference uint16, total, number uint8) bool {
	if concat, ok := NewConcat(reference, total, number); ok {
		h.concat = concat
	}
	return true
}

// NewConcat returns which part a part is; nil: the only one. false: there is no
// such part.
func NewConcat(reference uint16, total, number uint8) (*Concat, bool) {
	if number == 0 || number > total {
		return nil, false
	}
	if total == 1 {
		return nil, true
	}
	return &Concat{Reference: reference, Total: total, Number: number}, true
}

// ValidElements tells whether octets are whole information elements, as
// Decoded.UDH has them and Options.Elements may.
func ValidElements(elements []byte) bool {
	if len(elements) > maxHeader-partHeader16 {
		return false
	}
	h, _, err := parseHeader(appendHeader(nil, nil, elements))
	return err == nil && len(h.others) == len(elements)
}
