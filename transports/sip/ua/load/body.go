package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Sizes of a body in octets. The greatest is what every UDP stack carries
// together with a header.
const (
	minSize = 50
	maxSize = 16 << 10
)

// bodies are the texts of one run: a mark of the run, the pair and its
// sequence number, and stops up to the size.
type bodies struct {
	mark    []byte
	padding []byte // as long as a body
}

func newBodies(run string, size int) (bodies, error) {
	if size < minSize || size > maxSize {
		return bodies{}, fmt.Errorf("--size: expected %d to %d octets", minSize, maxSize)
	}
	return bodies{mark: []byte("bench " + run + " "), padding: bytes.Repeat([]byte("."), size)}, nil
}

// append appends the body of a message.
func (f bodies) append(b []byte, pair, sequence int) []byte {
	start := len(b)
	b = strconv.AppendInt(append(b, f.mark...), int64(pair), 10)
	b = strconv.AppendInt(append(b, ' '), int64(sequence), 10)
	b = append(b, ' ')
	return append(b, f.padding[len(b)-start:]...)
}

var (
	errStray   = errors.New("a message of somebody else")
	errDamaged = errors.New("a message with another body than it was sent with")
)

// read is the inverse of append.
func (f bodies) read(body []byte) (pair, sequence int, err error) {
	rest, ours := bytes.CutPrefix(body, f.mark)
	if !ours {
		return 0, 0, errStray
	}
	first, rest, _ := bytes.Cut(rest, []byte(" "))
	second, rest, found := bytes.Cut(rest, []byte(" "))
	pair, sequence = number(first), number(second)
	if !found || pair < 0 || sequence < 0 || len(body) != len(f.padding) || !bytes.Equal(rest, f.padding[:len(rest)]) {
		return 0, 0, errDamaged
	}
	return pair, sequence, nil
}
