package content

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLayers is how many encodings may be put on top of each other.
const maxLayers = 3

// Errors of Decode.
var (
	ErrEncoding = errors.New("content: not an encoding that is known")
	ErrTooLarge = errors.New("content: too large when decoded")
	ErrCorrupt  = errors.New("content: can't be decoded")
)

// Decode undoes a Content-Encoding (RFC 3261 §20.12, RFC 9110 §8.4): identity,
// gzip, x-gzip and deflate, which is zlib's format (RFC 1950) and, from some, the
// bare one (RFC 1951); or up to three of them, of which the last was put on last.
// More than max octets are never made. What needs no decoding isn't copied.
func Decode(encoding string, body []byte, max int) ([]byte, error) {
	layers := 0
	for encoding != "" {
		rest, last, found := cutLast(encoding)
		if !found {
			rest, last = "", encoding
		}
		if layers++; layers > maxLayers {
			return nil, fmt.Errorf("%w: more than %d", ErrEncoding, maxLayers)
		}
		var err error
		if body, err = decodeOne(strings.ToLower(strings.TrimSpace(last)), body, max); err != nil {
			return nil, err
		}
		encoding = rest
	}
	if len(body) > max {
		return nil, ErrTooLarge
	}
	return body, nil
}

func cutLast(list string) (before, last string, found bool) {
	i := strings.LastIndexByte(list, ',')
	if i < 0 {
		return "", list, false
	}
	return list[:i], list[i+1:], true
}

func decodeOne(encoding string, body []byte, max int) ([]byte, error) {
	switch encoding {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return inflate(r, max)
	case "deflate":
		r, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil { // not zlib's header
			return inflate(flate.NewReader(bytes.NewReader(body)), max)
		}
		return inflate(r, max)
	}
	return nil, ErrEncoding
}

func inflate(r io.Reader, max int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(max)+1))
	switch {
	case len(b) > max:
		return nil, ErrTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return b, nil
}
