package wire

import (
	"bytes"
	"strings"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdufield"
)

// layout reads and writes the mandatory parameters of a PDU.
type layout struct {
	decode func(pdu.ID, []byte) (Body, []byte, error) // returns what follows them
	encode func([]byte, Body) ([]byte, error)         // appends them
}

// field is one mandatory parameter of the body T.
type field[T any] struct {
	read  func(*T, []byte) ([]byte, error) // returns what follows it
	write func(*T, []byte) ([]byte, error) // appends it
}

// body is a pointer to T.
type body[T any] interface {
	*T
	Body
}

// newLayout puts the fields in the order of a list.
func newLayout[T any, P body[T]](fresh func(pdu.ID) P, table map[pdufield.Name]field[T], list pdufield.List) *layout {
	fields := inOrder(table, list)
	return &layout{
		decode: func(id pdu.ID, b []byte) (_ Body, _ []byte, err error) {
			p := fresh(id)
			for i := range fields {
				if b, err = fields[i].read((*T)(p), b); err != nil {
					return nil, nil, err
				}
			}
			return p, b, nil
		},
		encode: func(b []byte, from Body) (_ []byte, err error) {
			p, ok := from.(P)
			if !ok || p == nil {
				return b, &Error{RInvCmdID, "the body is not that of the command_id"}
			}
			for i := range fields {
				if b, err = fields[i].write((*T)(p), b); err != nil {
					return b, err
				}
			}
			return b, nil
		},
	}
}

// inOrder leaves out the counts: each is read and written with what it counts,
// which comes next.
func inOrder[T any](table map[pdufield.Name]field[T], list pdufield.List) []field[T] {
	var fields []field[T]
	for _, name := range list {
		switch name {
		case pdufield.SMLength, pdufield.NumberDests, pdufield.NoUnsuccess:
			continue
		}
		f, ok := table[name]
		if !ok {
			panic("no field " + string(name)) // a mistake of ours that no test could miss
		}
		fields = append(fields, f)
	}
	return fields
}

// octet is an integer of one octet.
func octet[T any](at func(*T) *uint8) field[T] {
	return field[T]{
		read: func(t *T, b []byte) (_ []byte, err error) {
			*at(t), b, err = readOctet(b)
			return b, err
		},
		write: func(t *T, b []byte) ([]byte, error) { return append(b, *at(t)), nil },
	}
}

// limit is how long a C-octet string may be, without its NUL, and what a longer
// one is answered with.
type limit struct {
	name   pdufield.Name
	most   int
	status pdu.Status
}

// text is a C-octet string (SMPP 3.4 §3.1).
func text[T any](l limit, at func(*T) *string) field[T] {
	return field[T]{
		read: func(t *T, b []byte) (_ []byte, err error) {
			*at(t), b, err = l.read(b)
			return b, err
		},
		write: func(t *T, b []byte) ([]byte, error) { return l.append(b, *at(t)) },
	}
}

func (l *limit) read(b []byte) (string, []byte, error) {
	end := bytes.IndexByte(b[:min(len(b), l.most+1)], 0)
	if end < 0 && len(b) > l.most {
		return "", nil, &Error{l.status, string(l.name) + " is too long"}
	}
	if end < 0 {
		return "", nil, errTruncated
	}
	return string(b[:end]), b[end+1:], nil
}

func (l *limit) append(b []byte, s string) ([]byte, error) {
	if len(s) > l.most {
		return b, &Error{l.status, string(l.name) + " is too long"}
	}
	if strings.IndexByte(s, 0) >= 0 {
		return b, &Error{l.status, string(l.name) + " holds a NUL"}
	}
	return append(append(b, s...), 0), nil
}

// errTruncated is an error of its own so that being cut short costs nothing.
var errTruncated error = &Error{RInvCmdLen, "the PDU ends before its mandatory parameters do"}

func readOctet(b []byte) (uint8, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errTruncated
	}
	return b[0], b[1:], nil
}

// readAddress reads ton, npi and number.
func (l *limit) readAddress(b []byte) (a Address, _ []byte, err error) {
	if len(b) < 2 {
		return a, nil, errTruncated
	}
	a.TON, a.NPI = b[0], b[1]
	a.Number, b, err = l.read(b[2:])
	return a, b, err
}

func (l *limit) appendAddress(b []byte, a *Address) ([]byte, error) {
	return l.append(append(b, a.TON, a.NPI), a.Number)
}

// maxText is how long short_message may be (SMPP 3.4 §5.2.21).
const maxText = 254

// shortMessage is sm_length and short_message.
func shortMessage[T any](at func(*T) *[]byte) field[T] {
	return field[T]{
		read: func(t *T, b []byte) ([]byte, error) {
			n, b, err := readOctet(b)
			switch {
			case err != nil:
				return nil, err
			case n > maxText || int(n) > len(b):
				return nil, &Error{RInvMsgLen, "sm_length is too large"}
			case n > 0:
				*at(t) = b[:n:n]
			}
			return b[n:], nil
		},
		write: func(t *T, b []byte) ([]byte, error) {
			s := *at(t)
			if len(s) > maxText {
				return b, &Error{RInvMsgLen, "short_message is too long"}
			}
			return append(append(b, uint8(len(s))), s...), nil
		},
	}
}
