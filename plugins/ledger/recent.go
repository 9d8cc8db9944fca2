package ledger

// recent remembers what was last said of keys, in two generations, so that a
// repeated key needs no look at the disk. It is longer than any number of
// changes that can be on their way to the disk.
type recent[K comparable, V any] struct{ young, old map[K]V }

const recentGeneration = 1 << 15

func newRecent[K comparable, V any]() recent[K, V] { return recent[K, V]{young: map[K]V{}} }

func (r *recent[K, V]) get(key K) (value V, known bool) {
	if value, known = r.young[key]; !known {
		value, known = r.old[key]
	}
	return value, known
}

func (r *recent[K, V]) add(key K, value V) {
	if len(r.young) >= recentGeneration {
		r.young, r.old = make(map[K]V, recentGeneration), r.young
	}
	r.young[key] = value
}
