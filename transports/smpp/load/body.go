package load

import (
	"bytes"
	"errors"
	"strconv"
)

// Sizes of a text in octets: all of it goes into one SMS.
const (
	minSize = 50
	maxSize = 160
)

// Bounds of the numbers of a text, so that nobody makes us remember more.
const (
	maxPairs    = 1_000_000
	maxSequence = maxMessages
)

// A text is that of `imgate bench`: "bench", a mark of the run, the pair of a
// sender and a recipient and its sequence number, and stops up to the size.
const word = "bench "

func appendText(b []byte, run string, pair, sequence, size int) []byte {
	start := len(b)
	b = append(append(append(b, word...), run...), ' ')
	b = append(strconv.AppendInt(b, int64(pair), 10), ' ')
	b = append(strconv.AppendInt(b, int64(sequence), 10), ' ')
	for len(b)-start < size {
		b = append(b, '.')
	}
	return b
}

var (
	errStray   = errors.New("a message of somebody else")
	errDamaged = errors.New("a message with another text than it was sent with")
)

// readText is the inverse of appendText. run is part of text.
func readText(text []byte) (run []byte, pair, sequence int, err error) {
	rest, ours := bytes.CutPrefix(text, []byte(word))
	if !ours {
		return nil, 0, 0, errStray
	}
	run, rest, _ = bytes.Cut(rest, []byte(" "))
	first, rest, _ := bytes.Cut(rest, []byte(" "))
	second, rest, found := bytes.Cut(rest, []byte(" "))
	pair, sequence = number(first, maxPairs), number(second, maxSequence)
	if !found || pair < 0 || sequence < 0 || len(bytes.Trim(rest, ".")) > 0 {
		return run, 0, 0, errDamaged
	}
	return run, pair, sequence, nil
}

// number reads digits; -1 if they aren't, or too many.
func number(b []byte, most int) int {
	n := 0
	for _, digit := range b {
		if digit < '0' || digit > '9' || n > most {
			return -1
		}
		n = n*10 + int(digit-'0')
	}
	if len(b) == 0 || n > most {
		return -1
	}
	return n
}
