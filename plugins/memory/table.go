package memory

import (
	"bytes"
	"iter"
	"slices"
	"sort"
)

// pageRows is how many rows a page has at most. A change moves one page's rows
// at worst, and the list of pages when a page is split or emptied.
const pageRows = 512

// table keeps rows in the order of their keys, in pages that are sorted in
// themselves and among each other and never empty. A scan finds its first row
// by two binary searches and then only reads.
type table struct {
	pages [][]entry
}

type entry struct{ key, value []byte }

// put writes a row. It keeps both slices.
func (t *table) put(key, value []byte) {
	if len(t.pages) == 0 {
		t.pages = [][]entry{{{key, value}}}
		return
	}
	p := t.page(key)
	i, found := position(t.pages[p], key)
	if found {
		t.pages[p][i].value = value
		return
	}
	t.pages[p] = slices.Insert(t.pages[p], i, entry{key, value})
	if len(t.pages[p]) > pageRows {
		t.split(p)
	}
}

// split moves the end of a full page to a page of its own. The last page gives
// only its last row away: keys that grow, as most do, so leave full pages.
func (t *table) split(p int) {
	at := pageRows / 2
	if p == len(t.pages)-1 {
		at = pageRows
	}
	full := t.pages[p]
	tail := append(make([]entry, 0, pageRows+1), full[at:]...)
	clear(full[at:])
	t.pages[p] = full[:at]
	t.pages = slices.Insert(t.pages, p+1, tail)
}

// remove deletes a row, if there is one.
func (t *table) remove(key []byte) {
	if len(t.pages) == 0 {
		return
	}
	p := t.page(key)
	i, found := position(t.pages[p], key)
	if !found {
		return
	}
	t.pages[p] = slices.Delete(t.pages[p], i, i+1)
	if len(t.pages[p]) == 0 {
		t.pages = slices.Delete(t.pages, p, p+1)
	}
}

// between goes through the rows with from <= key < to; nil for to means no end.
// The rows are the table's.
func (t *table) between(from, to []byte) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for p := t.page(from); p < len(t.pages); p++ {
			first, _ := position(t.pages[p], from)
			for _, e := range t.pages[p][first:] {
				if to != nil && bytes.Compare(e.key, to) >= 0 || !yield(e) {
					return
				}
			}
		}
	}
}

// page returns the number of the page where a key is or would be: the last one
// that doesn't begin behind it.
func (t *table) page(key []byte) int {
	behind := sort.Search(len(t.pages), func(p int) bool {
		return bytes.Compare(t.pages[p][0].key, key) > 0
	})
	return max(0, behind-1)
}

// position returns where in a page a key is or would be.
func position(page []entry, key []byte) (int, bool) {
	return slices.BinarySearchFunc(page, key, func(e entry, key []byte) int {
		return bytes.Compare(e.key, key)
	})
}
