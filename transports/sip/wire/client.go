package wire

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"sync"
	"sync/atomic"
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
	shards  [shards]clientShard
	idle    sync.Pool     // of *clientTransaction
	repeats atomic.Uint64 // requests that were sent again
}

type clientShard struct {
	mu      sync.Mutex
	waiting map[branchID]*clientTransaction
}

// maxPooled is the largest buffer, in octets, that is kept for later requests.
const maxPooled = 16 << 10

// clientTransaction is used again by later requests.
type clientTransaction struct {
	id      branchID
	method  string
	cseq    uint32
	flow    Flow // on which the answer has to come
	packet  []byte
	timer   *time.Timer
	answer  chan *Response
	repeats *atomic.Uint64 // the table's
}

func (t *clientTable) newTransaction() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &clientTransaction{timer: timer, answer: make(chan *Response, 1), repeats: &t.repeats}
}

func newClientTable() *clientTable {
	t := &clientTable{}
	t.idle.New = t.newTransaction
	for i := range t.shards {
		t.shards[i].waiting = map[branchID]*clientTransaction{}
	}
	return t
}

func (t *clientTable) shard(id branchID) *clientShard { return &t.shards[id[0]%shards] }

// do sends a request and waits for its final response (RFC 3261 §17.1.2): Timer
// E repeats it, but not on a connection; Timer F gives up with ErrTimeout.
// ErrNoFlow: the connection has ended. Only the caller's goroutine works.
func (t *clientTable) do(ctx context.Context, o *Outgoing, w *way, send func([]byte) error) (*Response, error) {
	c := t.idle.Get().(*clientTransaction)
	defer t.idle.Put(c)
	if err := c.build(o, w); err != nil {
		return nil, err
	}
	t.add(c)
	defer t.remove(c)
	return c.exchange(ctx, w, send)
}

func (c *clientTransaction) build(o *Outgoing, w *way) (err error) {
	rand.Read(c.id[:]) // never fails (crypto/rand)
	c.method, c.cseq, c.flow = o.Method, o.CSeq, w.flow
	var branch [branchLength]byte
	c.packet, err = appendRequest(c.packet[:0], o, w, string(c.id.append(branch[:0])))
	if err == nil && len(c.packet) > w.limit {
		err = w.tooLarge
	}
	return err
}

func (c *clientTransaction) exchange(ctx context.Context, w *way, send func([]byte) error) (*Response, error) {
	if err := send(c.packet); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timerF)
	pause := T1
	if w.gone != nil {
		pause = timerF
	}
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
			c.repeats.Add(1)
			if err := send(c.packet); err != nil {
				return nil, err
			}
			pause = min(2*pause, T2)
			c.timer.Reset(min(pause, left))
		case <-w.gone:
			return c.lastAnswer()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lastAnswer returns the response that came before its connection ended.
func (c *clientTransaction) lastAnswer() (*Response, error) {
	select {
	case r := <-c.answer:
		if r.Status >= 200 {
			return r, nil
		}
	default:
	}
	return nil, ErrNoFlow
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
// one gives way to a later one. It returns false if nobody waits for it, or it
// came from somebody else than was asked.
func (t *clientTable) deliver(r *Response, from Flow) bool {
	id, ok := parseBranch(r.Branch)
	if !ok {
		return false
	}
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[id]
	if c == nil || c.method != r.Method || c.cseq != r.CSeq || !c.flow.leadsTo(from) {
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
