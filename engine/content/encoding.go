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

// maxLayers is how many encodings may have been applied to a body.
const maxLayers = 3

// Errors of Decode.
var (
	ErrEncoding = errors.New("content: encodings that aren't known, or too many")
	ErrTooLarge = errors.New("content: too large when decoded")
	ErrCorrupt  = errors.New("content: can't be decoded")
)

// Decode undoes a Content-Encoding (RFC 3261 §20.12, RFC 9110 §8.4): identity,
// gzip (also called x-gzip) and deflate, or a list of up to three in the order in
// which they were applied. It makes no more than max octets, in no step; if
// nothing is to be undone it returns body itself.
func Decode(encoding string, body []byte, max int) ([]byte, error) {
	layers := strings.Split(encoding, ",")
	if len(layers) > maxLayers {
		return nil, ErrEncoding
	}
	for i := range layers {
		var err error
		if body, err = undo(strings.TrimSpace(layers[len(layers)-1-i]), body, max); err != nil {
			return nil, err
		}
	}
	if len(body) > max {
		return nil, ErrTooLarge
	}
	return body, nil
}

func undo(encoding string, body []byte, max int) ([]byte, error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return inflate(r, max)
	case "deflate":
		return inflate(deflated(body), max)
	}
	return nil, ErrEncoding
}

// deflated reads zlib's format (RFC 1950), which is meant, or the bare one (RFC
// 1951), which some send: no compressor makes a bare one begin as zlib's does.
func deflated(body []byte) io.Reader {
	r, err := zlib.NewReader(bytes.NewReader(body))
	if err != nil {
		return flate.NewReader(bytes.NewReader(body))
	}
	return r
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
