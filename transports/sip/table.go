package sip

import (
	"sync"
	"time"
)

// Shape of a table.
const (
	tableShards = 64
	tableWays   = 8 // places that a key may be at
)

// table remembers something by keys of 64 bits, which are hashes under a secret
// seed. It has a fixed number of places, so that whoever makes up sources or
// names costs no memory: each key has a few places, and if others have taken
// them all the one goes that was used least recently. It makes no garbage.
type table[V any] struct {
	sets   uint64 // in a shard
	shards [tableShards]tableShard[V]
}

// newTable has so many places, a multiple of tableShards*tableWays.
func newTable[V any](places int) *table[V] {
	return &table[V]{sets: uint64(places / tableShards / tableWays)}
}

// tableShard is a part of a table. Its memory comes with the first key.
type tableShard[V any] struct {
	mu     sync.Mutex
	places []place[V]
}

// place holds what is known under a key.
type place[V any] struct {
	key   uint64 // 0: nothing
	used  int64  // when it was opened last, in Unix nanoseconds
	value V
}

// lock returns the shard of a key, and the places in it where the key may be.
// The caller unlocks it, and lets go of the places before.
func (t *table[V]) lock(key uint64) (*tableShard[V], []place[V]) {
	s := &t.shards[key%tableShards]
	s.mu.Lock()
	if s.places == nil {
		s.places = make([]place[V], t.sets*tableWays)
	}
	first := key / tableShards % t.sets * tableWays
	return s, s.places[first : first+tableWays]
}

// find returns the place of a key; nil: nothing is known.
func find[V any](places []place[V], key uint64) *place[V] {
	for i := range places {
		if places[i].key == key {
			return &places[i]
		}
	}
	return nil
}

// opened returns the place of a key, and gives it one if it has none.
func opened[V any](places []place[V], key uint64, now time.Time) *place[V] {
	p := find(places, key)
	if p == nil {
		p = &places[0]
		for i := range places {
			if places[i].used < p.used {
				p = &places[i]
			}
		}
		*p = place[V]{key: key}
	}
	p.used = now.UnixNano()
	return p
}

// age is how long a place hasn't been opened.
func (p *place[V]) age(now time.Time) time.Duration { return time.Duration(now.UnixNano() - p.used) }

// keyOf makes a key of a hash: none is 0.
func keyOf(hash uint64) uint64 { return max(hash, 1) }
