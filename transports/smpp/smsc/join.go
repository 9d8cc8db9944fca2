package smsc

import (
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/imgate/imgate/transports/smpp/translate"
)

// Bounds of what waits to be joined.
const (
	maxJoining = 1000
	joinWithin = 10 * time.Minute
)

// Message is one that an ESME has sent.
type Message struct {
	From, To    string
	ContentType string
	Body        []byte
	Parts       int // in how many PDUs it came
}

// joiner puts messages together that come in parts.
type joiner struct {
	mu      sync.Mutex
	joining map[joinKey]*joining
}

// joinKey is what the parts of a message have in common.
type joinKey struct {
	from, to  string
	reference uint16
	total     uint8
}

type joining struct {
	began time.Time
	parts map[uint8][]byte
}

// take reads what was submitted, and hands on what is whole. What can't be read
// is handed on as the reason.
func (j *joiner) take(dialect translate.Dialect, s Submit, took func(Message)) {
	now := time.Now()
	in, err := dialect.Incoming(s.Packet, now)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil || in.Message == nil {
		took(Message{From: s.Short.Source.Number, To: s.Short.Destination.Number, ContentType: "unreadable", Parts: 1})
		return
	}
	m := Message{
		From: in.Message.From.User, To: in.Message.Recipient.User,
		ContentType: in.Message.ContentType, Body: in.Message.Body, Parts: 1,
	}
	if in.Part == nil {
		took(m)
		return
	}
	key := joinKey{m.From, m.To, in.Part.Reference, in.Part.Total}
	if body, whole := j.add(key, in.Part.Number, m.Body, now); whole {
		m.Body, m.Parts = body, int(key.total)
		took(m)
	}
}

// add adds a part, and returns the whole if it was the last one.
func (j *joiner) add(key joinKey, number uint8, part []byte, now time.Time) (body []byte, whole bool) {
	if j.joining == nil {
		j.joining = map[joinKey]*joining{}
	}
	g := j.joining[key]
	if g == nil {
		j.makeRoom(now)
		g = &joining{began: now, parts: map[uint8][]byte{}}
		j.joining[key] = g
	}
	g.parts[number] = part
	if len(g.parts) < int(key.total) {
		return nil, false
	}
	delete(j.joining, key)
	var joined strings.Builder
	for n := 1; n <= int(key.total); n++ {
		joined.Write(g.parts[uint8(n)])
	}
	return []byte(mend(joined.String())), true
}

// makeRoom forgets what is old, and what there is too much of.
func (j *joiner) makeRoom(now time.Time) {
	for key, g := range j.joining {
		if now.Sub(g.began) > joinWithin || len(j.joining) >= maxJoining {
			delete(j.joining, key)
		}
	}
}

// mend puts halves of surrogate pairs together that parts have torn apart: each is
// written as three octets, as if it were a character (see text.Decoded).
func mend(s string) string {
	if !strings.Contains(s, "\xed") {
		return s
	}
	var mended strings.Builder
	for i := 0; i < len(s); {
		high, isHigh := surrogate(s[i:], 0xa0)
		low, isLow := rune(0), false
		if isHigh {
			low, isLow = surrogate(s[i+3:], 0xb0)
		}
		if !isLow {
			mended.WriteByte(s[i])
			i++
			continue
		}
		mended.WriteRune(utf16.DecodeRune(high, low))
		i += 6
	}
	return mended.String()
}

// surrogate reads half a pair at the beginning of s: a high one if kind is 0xa0, a
// low one if it is 0xb0.
func surrogate(s string, kind byte) (rune, bool) {
	if len(s) < 3 || s[0] != 0xed || s[1]&0xf0 != kind {
		return 0, false
	}
	return 0xd000 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), true
}
