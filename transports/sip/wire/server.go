package wire

import (
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Why a server transaction can't begin.
var (
	ErrRepeated = errors.New("the request is being handled already")
	ErrFull     = errors.New("too many requests are being handled")
)

// shards divide the table so that workers rarely meet at a lock.
const shards = 64

// maxKept is how many octets of whole responses a shard keeps: those that a
// status and a Retry-After can't say again. All shards together keep 40 MiB: some
// 70,000 of them if each has 600 octets.
const maxKept = 640 << 10

// key tells transactions apart (RFC 3261 §17.2.3): 128 bits under a seed of this
// process, so that nobody can make up requests that share one.
type key struct{ hi, lo uint64 }

// outcome is what a transaction has come to, in 32 bits: the status in the lower
// 16, Retry-After in seconds in the upper. Zero: no final response yet.
type outcome uint32

const trying outcome = 0

func (o outcome) status() int { return int(o & math.MaxUint16) }

func (o outcome) retryAfter() time.Duration { return time.Duration(o>>16) * time.Second }

func finished(r *Reply) outcome {
	return outcome(min(seconds(r.RetryAfter), math.MaxUint16))<<16 | outcome(r.Status)
}

// serverTable holds the non-INVITE server transactions. A finished one takes a
// slot in a map without pointers and a place in a queue, some 80 octets; its
// response is made again from the request that is repeated. Over TCP Timer J is 0
// by the book; remembering for as long as over UDP costs no more, and absorbs
// what a client repeats on its next connection.
type serverTable struct {
	seeds   [3]maphash.Seed
	start   time.Time
	pending atomic.Int64 // transactions without a final response
	limit   int64        // of those
	bound   int          // finished transactions in a shard
	shards  [shards]serverShard
}

type serverShard struct {
	mu       sync.Mutex
	outcomes map[key]outcome
	kept     map[key][]byte
	octets   int   // in kept
	queue    queue // of finished transactions, in the order in which they end
}

func newServerTable(now time.Time, pending, finished int) *serverTable {
	t := &serverTable{start: now, limit: int64(pending), bound: max(1, finished/shards)}
	for i := range t.seeds {
		t.seeds[i] = maphash.MakeSeed()
	}
	for i := range t.shards {
		t.shards[i].outcomes = map[key]outcome{}
		t.shards[i].kept = map[key][]byte{}
	}
	return t
}

// key identifies the transaction of a request. Call-ID and CSeq belong to it
// besides branch, sent-by and method: so that old clients without a branch are
// told apart, and so that nobody can occupy another's transaction by guessing a
// branch.
func (t *serverTable) key(r *Request) key {
	var b [512]byte
	text := appendFields(b[:0], r.Via.Branch, r.Via.Host, r.Method, r.CallID, r.FromTag, r.head.value(fieldCSeq))
	text = append(text, byte(r.Via.Port>>8), byte(r.Via.Port))
	return key{maphash.Bytes(t.seeds[0], text), maphash.Bytes(t.seeds[1], text)}
}

// appendFields writes values so that they can't run into each other: none holds
// a control character.
func appendFields(b []byte, values ...string) []byte {
	for _, v := range values {
		b = append(append(b, v...), 0)
	}
	return b
}

// tag is the To tag of the response: the same for each repeat of a request.
func (t *serverTable) tag(k key) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	n := maphash.Comparable(t.seeds[2], k)
	var b [13]byte
	for i := range b {
		b[i] = alphabet[n&31]
		n >>= 5
	}
	return string(b[:])
}

// find tells what has become of a transaction. kept is the whole response if
// the outcome doesn't say it all.
func (t *serverTable) find(k key, now time.Time) (o outcome, kept []byte, found bool) {
	s := &t.shards[k.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(t.tick(now))
	o, found = s.outcomes[k]
	return o, s.kept[k], found
}

// begin notes that a request is being handled.
func (t *serverTable) begin(k key) error {
	if t.pending.Add(1) > t.limit {
		t.pending.Add(-1)
		return ErrFull
	}
	s := &t.shards[k.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.outcomes[k]; found {
		t.pending.Add(-1)
		return ErrRepeated
	}
	s.outcomes[k] = trying
	return nil
}

// finish notes the final response; whole is nil if the outcome says it all. If
// there are too many finished transactions, or they keep too much, the oldest are
// forgotten.
func (t *serverTable) finish(k key, o outcome, whole []byte, now time.Time) {
	t.pending.Add(-1)
	s := &t.shards[k.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queue.n >= t.bound || len(s.kept) > 0 && s.octets+len(whole) > maxKept {
		s.forget()
	}
	s.outcomes[k] = o
	if whole != nil {
		s.kept[k] = whole
		s.octets += len(whole)
	}
	s.queue.push(ending{k, t.tick(now.Add(timerJ))})
}

// abandon ends a transaction without a response: the peer repeats its request.
func (t *serverTable) abandon(k key) {
	s := &t.shards[k.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.outcomes, k)
	t.pending.Add(-1)
}

func (t *serverTable) tick(now time.Time) uint32 {
	return uint32(now.Sub(t.start) / time.Second)
}

func (s *serverShard) expire(tick uint32) {
	for s.queue.n > 0 && s.queue.first().at < tick {
		s.forget()
	}
}

func (s *serverShard) forget() {
	k := s.queue.pop().key
	delete(s.outcomes, k)
	s.octets -= len(s.kept[k])
	delete(s.kept, k)
}

// ending says when a finished transaction is forgotten.
type ending struct {
	key
	at uint32 // second of this process
}

// queue is a ring that grows.
type queue struct {
	ring []ending
	head int
	n    int
}

func (q *queue) first() ending { return q.ring[q.head] }

func (q *queue) push(e ending) {
	if q.n == len(q.ring) {
		ring := make([]ending, max(16, q.n+q.n/2))
		copied := copy(ring, q.ring[q.head:])
		copy(ring[copied:], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = e
	q.n++
}

func (q *queue) pop() ending {
	e := q.ring[q.head]
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return e
}
