package postgres

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// array is an array of one dimension in PostgreSQL's binary format: a head, and
// each element behind its length (array_recv in PostgreSQL's
// src/backend/utils/adt/arrayfuncs.c). It is built in place and used again.
type array struct {
	octets  []byte
	element uint32 // the type's OID
	n       int
	nulls   bool
}

const (
	arrayHead = 20      // octets: dimensions, whether there are NULLs, element type, length, first index
	keptArray = 1 << 20 // octets; a larger one isn't kept for the next Apply
)

func newArray(element uint32) array { return array{element: element} }

func (a *array) reset() {
	if cap(a.octets) > keptArray {
		a.octets = nil
	}
	a.octets = append(a.octets[:0], make([]byte, arrayHead)...)
	a.n, a.nulls = 0, false
}

// finish returns the array. It belongs to whoever asked until the next reset.
func (a *array) finish() []byte {
	head := a.octets[:0]
	head = binary.BigEndian.AppendUint32(head, 1)
	head = binary.BigEndian.AppendUint32(head, flag(a.nulls))
	head = binary.BigEndian.AppendUint32(head, a.element)
	head = binary.BigEndian.AppendUint32(head, uint32(a.n))
	_ = binary.BigEndian.AppendUint32(head, 1)
	return a.octets
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func (a *array) put(element []byte) {
	a.octets = binary.BigEndian.AppendUint32(a.octets, uint32(len(element)))
	a.octets = append(a.octets, element...)
	a.n++
}

func (a *array) putText(s string) {
	a.octets = binary.BigEndian.AppendUint32(a.octets, uint32(len(s)))
	a.octets = append(a.octets, s...)
	a.n++
}

func (a *array) putNumber(n int64) {
	a.octets = binary.BigEndian.AppendUint32(a.octets, 8)
	a.octets = binary.BigEndian.AppendUint64(a.octets, uint64(n))
	a.n++
}

func (a *array) putNull() {
	a.octets = binary.BigEndian.AppendUint32(a.octets, math.MaxUint32) // -1
	a.n++
	a.nulls = true
}

// putValue puts what a sheet has read, which suits its column.
func (a *array) putValue(v any, c plugin.Column) {
	switch v := v.(type) {
	case string:
		a.putText(readable(v, c.Indexed))
	case int64:
		a.putNumber(v)
	case plugin.Money:
		a.putNumber(int64(v))
	case bool:
		a.put([]byte{byte(flag(v))})
	case message.ID:
		a.put(v[:])
	case time.Time:
		a.putMoment(v)
	default:
		a.putNull()
	}
}

// putMoment puts microseconds since 2000. A time without a date, or one that
// nobody means, is none.
func (a *array) putMoment(t time.Time) {
	if year := t.Year(); t.IsZero() || year < 1 || year > 9999 {
		a.putNull()
		return
	}
	a.putNumber(t.UnixMicro() - epoch)
}

// epoch is PostgreSQL's, in microseconds since 1970.
const epoch = 946_684_800_000_000

// suits tells whether a value is of the type that its column wants.
func suits(v any, want plugin.ColumnType) bool {
	var got plugin.ColumnType
	switch v.(type) {
	case nil:
		return true
	case string:
		got = plugin.ColumnText
	case int64:
		got = plugin.ColumnNumber
	case bool:
		got = plugin.ColumnFlag
	case time.Time:
		got = plugin.ColumnMoment
	case plugin.Money:
		got = plugin.ColumnMoney
	case message.ID:
		got = plugin.ColumnID
	}
	return got == want
}

// Longer texts are cut: an entry of an index has at most 2,704 octets.
const (
	maxIndexed = 1 << 10
	maxText    = 64 << 10
)

// readable makes a text one that PostgreSQL takes: UTF-8, without NUL.
func readable(s string, indexed bool) string {
	limit := maxText
	if indexed {
		limit = maxIndexed
	}
	return cut(clean(cut(s, limit)), limit) // cleaning it may make it longer
}

// cut returns the beginning of a text, up to the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// clean replaces what is neither UTF-8 nor anything but NUL.
func clean(s string) string {
	const instead = "\uFFFD"
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, instead), "\x00", instead)
}

// number is a bigint in binary format.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// arraysOf returns an array for each parameter of a relation's upsert.
func arraysOf(r *relation) []array {
	arrays := []array{newArray(pgtype.ByteaOID), newArray(pgtype.ByteaOID)}
	if r.shared {
		return append(arrays, newArray(pgtype.TextOID))
	}
	for _, c := range r.table.columns {
		arrays = append(arrays, newArray(kinds[c.Type].oid))
	}
	return arrays
}
