package plugin

import (
	"context"
	"errors"
	"time"
)

// Limits that every storage must be able to take. The engine stays below them.
const (
	MaxKey   = 512     // octets of a key
	MaxValue = 1 << 20 // octets of a value
	MaxApply = 8 << 20 // octets of keys and values in one Apply
)

// Storage keeps ordered tables of keys and values on disk. The engine has one
// committer, the only caller of Apply, which gathers the changes of all its
// callers; so a storage gets group commit for nothing. Scan is called beside
// it, from a few goroutines.
type Storage interface {
	// Apply makes all the changes or none, in their order (of two changes to
	// one key the later counts), if f is the fence of the newest lease. When it
	// returns nil they are on disk and every later Scan sees them.
	//
	// ErrFenced: a newer lease exists; nothing was changed and nothing ever
	// will be under this fence. Any other error is taken as temporary, and the
	// committer tries again. If it is ErrNotApplied too, nothing was changed;
	// else the changes may or may not be on disk.
	Apply(ctx context.Context, f Fence, changes []Change) error

	// Scan returns up to n rows of a table with from <= key < to in the order
	// of their keys' octets; nil for to means no end. A table that was never
	// written to is empty. What it returns belongs to the caller.
	Scan(ctx context.Context, table string, from, to []byte, n int) ([]Change, error)

	Leases

	// Close lets go of files and connections. No other method runs or follows.
	Close() error
}

// ErrNotApplied is what an error of Apply wraps if nothing was changed for sure:
// the storage couldn't be reached, or refused. Then whoever waits for it is told
// at once.
var ErrNotApplied = errors.New("nothing was changed")

// Change is one row to write, or to delete where Value is nil. An empty Value
// that isn't nil is a row like any other.
type Change struct {
	Table string // [a-z/]+, at most 64 octets
	Key   []byte
	Value []byte
}

// Fence is the number of a lease. Every Acquire that succeeds returns a
// greater one than all before it.
type Fence uint64

// ErrHeld is what Acquire returns while somebody else holds the lease, or it is
// reserved for somebody else.
var ErrHeld = errors.New("the lease is held by another node")

// Leases say which node is the active one. There is one lease in a storage.
// All times are the storage's own: nodes needn't agree on a clock. None of the
// calls waits for an Apply of another node that doesn't end.
type Leases interface {
	// Acquire takes the lease for ttl if nobody holds it, also if the holder is
	// a node of the same name, or it is reserved for this one. From then on every
	// older fence is refused, also to what is under way. ErrHeld: another holds
	// it. Called when Lease says that it can be had, up to four times a second.
	Acquire(ctx context.Context, node string, ttl time.Duration) (Fence, error)
	// Renew extends the lease by ttl from now. ErrFenced: it is no longer ours,
	// because it ran out, or was released or handed over.
	Renew(ctx context.Context, f Fence, ttl time.Duration) error
	// Release ends the lease at once, so that another node needn't wait. With
	// an older fence it changes nothing and returns nil.
	Release(ctx context.Context, f Fence) error
	// Handover ends the lease at once and reserves it: for ttl, or until it has
	// come, only the node that is named can acquire it, then anybody. ErrFenced:
	// it was no longer ours to give.
	Handover(ctx context.Context, f Fence, to string, ttl time.Duration) error
	// Lease tells who holds the lease, or held it last. It changes nothing.
	// Called about four times a second by each node that waits for it.
	Lease(ctx context.Context) (Lease, error)
	// Attend notes that a node is there and what it says of itself, and returns
	// what all nodes have said, itself included, that attended within
	// AttendanceKept, by name. It needs no fence: attendance decides nothing.
	// Called about once a second by each node. The name is at most 80 octets of
	// A-Z, a-z, 0-9, ".", "_", "-" and "/": processes that bear one node's name
	// are told apart by what is behind the slash.
	Attend(ctx context.Context, node, note string) ([]Attendant, error)
}

// Lease is what is known of the lease.
type Lease struct {
	Node  string        // who holds it, or held it last; empty: it was never acquired
	Fence Fence         // of the newest lease
	State LeaseState    //
	Left  time.Duration // how long it lasts unless it is renewed; negative: for how long it has been free
	// Next is the node for which it is reserved, while State is LeaseReserved.
	Next string
}

// LeaseState is how a lease stands.
type LeaseState string

// The states of a lease.
const (
	LeaseHeld     LeaseState = "held"
	LeaseReserved LeaseState = "reserved" // handed over, and not yet acquired
	LeaseReleased LeaseState = "released" // or handed over to a node that didn't come
	LeaseExpired  LeaseState = "expired"  // its holder didn't renew it
	LeaseFree     LeaseState = "free"     // it was never acquired
)

// Bounds of attendance.
const (
	AttendanceKept = time.Hour
	MaxNote        = 4 << 10 // octets of a note
)

// Attendant is a node as others see it.
type Attendant struct {
	Node string
	Note string        // what it said last: UTF-8 without NUL, at most MaxNote octets
	Ago  time.Duration // since it said so
}
