package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// errCorrupt says that a row isn't what this version writes.
var errCorrupt = errors.New("row is corrupt")

// writer appends fields to a row: integers as varints, strings with their
// length in front, times as microseconds since 1970.
type writer struct{ b []byte }

func (w *writer) uint(v uint64)   { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)     { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) id(v message.ID) { w.b = append(w.b, v[:]...) }

func (w *writer) bool(v bool) {
	if v {
		w.uint(1)
		return
	}
	w.uint(0)
}

func (w *writer) string(v string) {
	w.uint(uint64(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) bytes(v []byte) {
	w.uint(uint64(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) strings(v []string) {
	w.uint(uint64(len(v)))
	for _, s := range v {
		w.string(s)
	}
}

func (w *writer) reasons(v []message.Reason) {
	w.uint(uint64(len(v)))
	for _, reason := range v {
		w.string(string(reason))
	}
}

func (w *writer) time(v time.Time) {
	if v.IsZero() {
		w.int(0)
		return
	}
	w.int(v.UnixMicro())
}

func (w *writer) duration(v time.Duration) { w.int(int64(v)) }

func (w *writer) address(v message.Address) {
	w.string(v.User)
	w.string(v.Host)
}

// reader takes fields off a row. After the first fault it returns zero values
// and keeps the fault.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.err = errCorrupt
	r.b = nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bool() bool { return r.uint() == 1 }

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) id() (id message.ID) {
	copy(id[:], r.take(uint64(len(id))))
	return id
}

func (r *reader) bytes() []byte {
	v := r.take(r.uint())
	if len(v) == 0 {
		return nil
	}
	return v
}

func (r *reader) string() string { return string(r.take(r.uint())) }

// skip passes over texts.
func (r *reader) skip(texts int) {
	for range texts {
		r.take(r.uint())
	}
}

// count reads how many items follow; each takes at least one octet, so a count
// beyond what is left is corrupt and allocates nothing.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) strings() []string { return texts[string](r) }

func (r *reader) reasons() []message.Reason { return texts[message.Reason](r) }

func texts[T ~string](r *reader) []T {
	n := r.count()
	if n == 0 {
		return nil
	}
	v := make([]T, n)
	for i := range v {
		v[i] = T(r.string())
	}
	return v
}

func (r *reader) time() time.Time {
	us := r.int()
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (r *reader) duration() time.Duration { return time.Duration(r.int()) }

func (r *reader) address() message.Address {
	return message.Address{User: r.string(), Host: r.string()}
}

func (r *reader) labels() map[string]string {
	n := r.count()
	if n == 0 {
		return nil
	}
	labels := make(map[string]string, n)
	for range n {
		key := r.string()
		labels[key] = r.string()
	}
	return labels
}

// version reads the first field of each row.
func (r *reader) version(oldest, newest uint64) uint64 {
	got := r.uint()
	if r.err == nil && (got < oldest || got > newest) {
		r.err = fmt.Errorf("row has format %d, this version reads %d to %d", got, oldest, newest)
		r.b = nil
	}
	return got
}

// done returns the fault, if any; octets that are left over are one.
func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		return errCorrupt
	}
	return r.err
}
