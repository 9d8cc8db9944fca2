package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/imgate/imgate/engine/plugin"
)

// leaseWithin bounds each call about the lease, should its context not.
const leaseWithin = 3 * time.Second

// lease makes a call about the lease.
func (s *storage) lease(ctx context.Context, c call) error {
	ctx, cancel := context.WithTimeout(ctx, leaseWithin)
	defer cancel()
	return s.leases.do(ctx, c)
}

func (s *storage) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	var fence *int64
	err := s.lease(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT "+s.schema.of("acquire")+"($1, $2, $3)", clean(node), s.process, ttl.Microseconds()).Scan(&fence)
	})
	if err != nil {
		return 0, fmt.Errorf("acquire the lease: %w", err)
	}
	if fence == nil {
		return 0, plugin.ErrHeld
	}
	return plugin.Fence(*fence), nil
}

// holds is true of the row of the lease while the process $1 holds it under the
// fence $2.
const holds = "one AND process = $1 AND fence = $2 AND NOT released AND ends > clock_timestamp()"

func (s *storage) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	sql := "UPDATE " + s.schema.of("core_lease") + " SET ends = clock_timestamp() + $3::bigint * interval '1 microsecond', lasts = $3 WHERE " + holds
	return s.change(ctx, "renew the lease", f, sql, ttl.Microseconds())
}

func (s *storage) Release(ctx context.Context, f plugin.Fence) error {
	sql := "UPDATE " + s.schema.of("core_lease") + " SET ends = clock_timestamp(), released = true WHERE " + holds
	err := s.change(ctx, "release the lease", f, sql)
	if errors.Is(err, plugin.ErrFenced) {
		return nil
	}
	return err
}

func (s *storage) Handover(ctx context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	sql := "UPDATE " + s.schema.of("core_lease") + " SET ends = clock_timestamp(), released = true, next = $3," +
		" reserved = clock_timestamp() + $4::bigint * interval '1 microsecond', lasts = $4 WHERE " + holds
	return s.change(ctx, "hand the lease over", f, sql, clean(to), ttl.Microseconds())
}

// change changes the lease that is held under a fence. ErrFenced: it isn't.
func (s *storage) change(ctx context.Context, what string, f plugin.Fence, sql string, args ...any) error {
	var changed int64
	err := s.lease(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, sql, append([]any{s.process, int64(f)}, args...)...)
		changed = tag.RowsAffected()
		return err
	})
	if err == nil && changed == 0 {
		err = s.fenced(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// fenced returns ErrFenced with the reason, as far as it can be found.
func (s *storage) fenced(ctx context.Context, f plugin.Fence) error {
	var l found
	if err := s.lease(ctx, l.read(s.schema)); err != nil {
		return fmt.Errorf("%w; who took it can't be read: %w", plugin.ErrFenced, err)
	}
	return fmt.Errorf("%w: %s", plugin.ErrFenced, l.why(f, s.process))
}

// found is the row of the lease, with times in microseconds from now.
type found struct {
	node, process, next string
	fence               int64
	released            bool
	ends, reserved      *int64
}

func (l *found) read(s schema) call {
	left := s.of("left_of")
	sql := "SELECT node, process, next, fence, released, " + left + "(ends, lasts), " + left + "(reserved, lasts) FROM " + s.of("core_lease") + " WHERE one"
	return func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, sql).Scan(&l.node, &l.process, &l.next, &l.fence, &l.released, &l.ends, &l.reserved)
		if errors.Is(err, pgx.ErrNoRows) {
			*l = found{} // somebody has deleted it: acquire makes it anew
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the lease: %w", err)
		}
		return nil
	}
}

// why says why the lease isn't held under a fence, by a process.
func (l *found) why(f plugin.Fence, process string) string {
	switch {
	case l.fence == int64(f) && l.process == process && l.released:
		return "it was released or handed over"
	case l.fence == int64(f) && l.process == process:
		return "it ran out before it was renewed"
	case l.process == process:
		return fmt.Sprintf("this process acquired it again, with the fence %d", l.fence)
	case l.node == "":
		return "its row in the database was deleted"
	}
	return fmt.Sprintf("node %q has acquired it with the fence %d (%s); if this node bears the same name, one of them needs another", l.node, l.fence, l.process)
}

func (s *storage) Lease(ctx context.Context) (plugin.Lease, error) {
	var l found
	if err := s.lease(ctx, l.read(s.schema)); err != nil {
		return plugin.Lease{}, err
	}
	return l.lease(), nil
}

func (l *found) lease() plugin.Lease {
	if l.ends == nil {
		return plugin.Lease{Fence: plugin.Fence(l.fence), State: plugin.LeaseFree}
	}
	lease := plugin.Lease{Node: l.node, Fence: plugin.Fence(l.fence), State: plugin.LeaseExpired, Left: micros(*l.ends)}
	switch {
	case l.reserved != nil && *l.reserved > 0:
		lease.State, lease.Next, lease.Left = plugin.LeaseReserved, l.next, micros(*l.reserved)
	case l.released:
		lease.State = plugin.LeaseReleased
	case *l.ends > 0:
		lease.State = plugin.LeaseHeld
	}
	return lease
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func (s *storage) Attend(ctx context.Context, node, note string) ([]plugin.Attendant, error) {
	if len(note) > plugin.MaxNote {
		return nil, fmt.Errorf("the note has %d octets, at most %d are kept", len(note), plugin.MaxNote)
	}
	var all []plugin.Attendant
	err := s.lease(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		all, err = s.attend(ctx, conn, node, note)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attend: %w", err)
	}
	return all, nil
}

func (s *storage) attend(ctx context.Context, conn *pgx.Conn, node, note string) ([]plugin.Attendant, error) {
	rows, err := conn.Query(ctx, "SELECT a_node, a_note, ago FROM "+s.schema.of("attend")+"($1, $2, $3)",
		clean(node), []byte(note), plugin.AttendanceKept.Microseconds())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (plugin.Attendant, error) {
		var a plugin.Attendant
		var said []byte
		var ago int64
		err := row.Scan(&a.Node, &said, &ago)
		a.Note, a.Ago = string(said), micros(ago)
		return a, err
	})
}
