package hep

import "sync/atomic"

// How much may wait to be sent.
const (
	maxQueued       = 4_096   // packets
	maxQueuedOctets = 4 << 20 // octets
)

// queue holds encoded packets. put may be called from any goroutine, take from
// one. It isn't closed but ended, so that a put that comes late does no harm.
type queue struct {
	packets chan []byte
	octets  atomic.Int64
	ended   chan struct{}
}

func newQueue() *queue {
	return &queue{packets: make(chan []byte, maxQueued), ended: make(chan struct{})}
}

// put takes a packet if there is room, and never waits.
func (q *queue) put(encoded []byte) bool {
	n := int64(len(encoded))
	if q.octets.Add(n) > maxQueuedOctets {
		q.octets.Add(-n)
		return false
	}
	select {
	case q.packets <- encoded:
		return true
	default:
		q.octets.Add(-n)
		return false
	}
}

// take waits for a packet. Not ok: the queue has ended and is empty.
func (q *queue) take() (encoded []byte, ok bool) {
	select {
	case encoded = <-q.packets:
	case <-q.ended:
		select {
		case encoded = <-q.packets:
		default:
			return nil, false
		}
	}
	q.octets.Add(-int64(len(encoded)))
	return encoded, true
}

// end lets take return once all is taken. It is called once.
func (q *queue) end() { close(q.ended) }

func (q *queue) len() int { return len(q.packets) }
