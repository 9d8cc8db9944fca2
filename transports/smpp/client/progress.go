package client

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/transports/smpp/translate"
)

// A progress is how many parts the SMSC has taken, of how many, and a digest by
// which these parts are known: where a changed configuration cuts a message in
// another way, it begins anew.
const (
	progressLength  = 1 + 1 + 1 + 8
	progressVersion = 1
)

// progress says that the first so many parts were taken.
func progress(taken int, parts []translate.Outgoing) []byte {
	b := make([]byte, 0, progressLength)
	b = append(b, progressVersion, byte(taken), byte(len(parts)))
	return binary.BigEndian.AppendUint64(b, digestOf(parts))
}

// takenOf is the inverse of progress; 0: nothing was taken, or of other parts.
func takenOf(b []byte, parts []translate.Outgoing) int {
	if len(b) != progressLength || b[0] != progressVersion || int(b[2]) != len(parts) || int(b[1]) > len(parts) {
		return 0
	}
	if binary.BigEndian.Uint64(b[3:]) != digestOf(parts) {
		return 0
	}
	return int(b[1])
}

// digestOf tells parts from others: what is in them, and not when they expire.
func digestOf(parts []translate.Outgoing) uint64 {
	h := fnv.New64a()
	for i := range parts {
		payload, _ := parts[i].TLVs.Get(pdutlv.TagMessagePayload)
		for _, content := range [][]byte{parts[i].Short.Text, payload} {
			_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(content)))) // a hash has no errors
			_, _ = h.Write(content)
		}
	}
	return h.Sum64()
}
