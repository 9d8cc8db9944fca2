package wire

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"sync"
	"time"
)

// branchID is the random part of a branch: nobody who doesn't see our requests
// can answer them.
type branchID [16]byte

const branchLength = len(magicCookie) + 22

func (id branchID) append(b []byte) []byte {
	return base64.RawURLEncoding.AppendEncode(append(b, magicCookie...), id[:])
}

func parseBranch(s string) (id branchID, ok bool) {
	if len(s) != branchLength || s[:len(magicCookie)] != magicCookie {
		return id, false
	}
	var b [18]byte
	n, err := base64.RawURLEncoding.Decode(b[:], []byte(s[len(magicCookie):]))
	copy(id[:], b[:])
	return id, err == nil && n == len(id)
}

// clientTable holds the non-INVITE client transactions that wait for a final
// response.
type clientTable struct {
	shards [shards]clientShard
	idle   sync.Pool // of *clientTransaction
}

type clientShard struct {
	mu      sync.Mutex
	waiting map[branchID]*clientTransaction
}

// maxPooled is the largest buffer, in octets, that is kept for later requests.
const maxPooled = 16 << 10

// clientTransaction is used again by later requests.
type clientTransaction struct {
	id     branchID
	method string
	cseq   uint32
	packet []byte
	timer  *time.Timer
	answer chan *Response
}

func newClientTransaction() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &clientTransaction{timer: timer, answer: make(chan *Response, 1)}
}

func newClientTable() *clientTable {
	t := &clientTable{idle: sync.Pool{New: newClientTransaction}}
	for i := range t.shards {
		t.shards[i].waiting = map[branchID]*clientTransaction{}
	}
	return t
}

func (t *clientTable) shard(id branchID) *clientShard { return &t.shards[id[0]%shards] }

// do sends a request and waits for its final response (RFC 3261 §17.1.2): Timer
// E repeats it, Timer F gives up with ErrTimeout. Only the caller's goroutine
// works.
func (t *clientTable) do(ctx context.Context, o *Outgoing, sentBy string, send func([]byte) error) (*Response, error) {
	c := t.idle.Get().(*clientTransaction)
	defer t.idle.Put(c)
	if err := c.build(o, sentBy); err != nil {
		return nil, err
	}
	t.add(c)
	defer t.remove(c)
	return c.exchange(ctx, send)
}

func (c *clientTransaction) build(o *Outgoing, sentBy string) (err error) {
	rand.Read(c.id[:]) // never fails (crypto/rand)
	c.method, c.cseq = o.Method, o.CSeq
	var branch [branchLength]byte
	c.packet, err = appendRequest(c.packet[:0], o, sentBy, string(c.id.append(branch[:0])))
	if err == nil && len(c.packet) > MaxDatagram {
		err = ErrTooLarge
	}
	return err
}

func (c *clientTransaction) exchange(ctx context.Context, send func([]byte) error) (*Response, error) {
	if err := send(c.packet); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timerF)
	pause := T1
	c.timer.Reset(pause)
	defer c.timer.Stop()
	for {
		select {
		case r := <-c.answer:
			if r.Status >= 200 {
				return r, nil
			}
			pause = T2 // Proceeding: Timer E goes on at T2
		case <-c.timer.C:
			left := time.Until(deadline)
			if left <= 0 {
				return nil, ErrTimeout
			}
			if err := send(c.packet); err != nil {
				return nil, err
			}
			pause = min(2*pause, T2)
			c.timer.Reset(min(pause, left))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *clientTable) add(c *clientTransaction) {
	s := t.shard(c.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[c.id] = c
}

// remove ends a transaction. After it no response reaches c any more.
func (t *clientTable) remove(c *clientTransaction) {
	s := t.shard(c.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, c.id)
	if cap(c.packet) > maxPooled {
		c.packet = nil
	}
	select {
	case <-c.answer: // a repeat that came while the first was read
	default:
	}
}

// deliver hands a response to its transaction (RFC 3261 §17.1.3). A provisional
// one gives way to a later one. It returns false if nobody waits for it.
func (t *clientTable) deliver(r *Response) bool {
	id, ok := parseBranch(r.Branch)
	if !ok {
		return false
	}
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[id]
	if c == nil || c.method != r.Method || c.cseq != r.CSeq {
		return false
	}
	taken := true
	select {
	case earlier := <-c.answer: // not read yet
		if earlier.Status >= 200 {
			r, taken = earlier, false
		}
	default:
	}
	c.answer <- r // there is room: only this function sends, and it holds the lock
	return taken
}
