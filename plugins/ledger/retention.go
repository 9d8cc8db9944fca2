package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// When old rows are looked for, and the pause after each page of them, so that
// traffic gets its turn: at most 50,000 rows a second are removed.
const (
	firstHousekeeping = time.Minute // after the book was opened
	housekeepingEvery = 10 * time.Minute
	pagePause         = 20 * time.Millisecond
)

// housekeeper does a job again and again until it is closed.
type housekeeper struct {
	stop context.CancelFunc
	done chan struct{}
}

// keepHouse starts a housekeeper. It outlives ctx, which is that of opening.
func keepHouse(ctx context.Context, log *slog.Logger, job func(ctx context.Context, now time.Time) error) *housekeeper {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := &housekeeper{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for next := firstHousekeeping; sleep(ctx, next); next = housekeepingEvery {
			if err := job(ctx, time.Now()); err != nil && ctx.Err() == nil {
				log.Warn("old rows stay for now; it will be tried again", "reason", err)
			}
		}
	}()
	return h
}

// close returns when the job has ended.
func (h *housekeeper) close() {
	h.stop()
	<-h.done
}

// sleep waits and tells whether the wait was full.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// expireCDRs removes the CDRs of what was paid for before a time. Those are
// found among the messages received before it.
func (b *book) expireCDRs(ctx context.Context, before time.Time) error {
	return b.expire(ctx, tableCDRs, firstKey(before), func(row plugin.Change) (bool, error) {
		c, err := readCDR(row)
		return err == nil && int64(c.Settled) < before.UnixMilli(), err
	})
}

// expire removes the rows of a table, up to a key, that are old. One that can't
// be read stays and is reported at the end.
func (b *book) expire(ctx context.Context, table string, to []byte, old func(plugin.Change) (bool, error)) error {
	var from []byte
	var unreadable error
	for {
		rows, err := b.tables.Scan(ctx, table, from, to, pageSize)
		if err != nil {
			return errors.Join(unreadable, fmt.Errorf("read table %s: %w", table, err))
		}
		var removed []plugin.Change
		for _, row := range rows {
			expired, err := old(row)
			if expired {
				removed = append(removed, plugin.Change{Table: table, Key: row.Key})
			}
			if unreadable == nil {
				unreadable = err
			}
		}
		if err := b.removeRows(ctx, removed); err != nil {
			return errors.Join(unreadable, err)
		}
		if len(rows) < pageSize || !sleep(ctx, pagePause) {
			return unreadable
		}
		from = after(rows[len(rows)-1].Key)
	}
}

// removeRows waits for the disk: not more than one page at a time is on its way.
func (b *book) removeRows(ctx context.Context, rows []plugin.Change) error {
	if len(rows) == 0 {
		return nil
	}
	if err := wait(ctx, b.tables.Commit(rows)); err != nil {
		return fmt.Errorf("remove rows of table %s: %w", rows[0].Table, err)
	}
	return nil
}
