package pebble

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// purgeEvery is how often what was deleted is taken out of the files. Under
	// traffic Pebble does so by itself; on a quiet node it might never, and what
	// a message said would stay there.
	purgeEvery = time.Hour
	// purgeAtMost is how large a table may be to be rewritten for that, in
	// octets on disk. Larger ones have traffic.
	purgeAtMost = 64 << 20
)

// purge takes what was deleted out of the files of a store.
type purge struct {
	db  *pebble.DB
	log *slog.Logger

	mu     sync.Mutex
	tables []string // with deletions since the last time; there are few
}

// deleted notes that a row of a table was deleted.
func (p *purge) deleted(table string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.tables, table) {
		p.tables = append(p.tables, table)
	}
}

func (p *purge) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	tables := p.tables
	p.tables = nil
	return tables
}

// run works until ctx ends.
func (p *purge) run(ctx context.Context) {
	ticker := time.NewTicker(purgeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := p.once(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("taking deleted rows out of the files failed; it will be tried again", "error", err)
		}
	}
}

// once rewrites the small tables in which rows were deleted.
func (p *purge) once(ctx context.Context) error {
	tables := p.take()
	if len(tables) == 0 {
		return nil
	}
	if err := p.db.Flush(); err != nil {
		return err
	}
	for _, table := range tables {
		from, to := keyOf(table, nil), append([]byte(table), 1)
		size, err := p.db.EstimateDiskUsage(from, to)
		if err == nil && size > 0 && size <= purgeAtMost {
			err = p.db.Compact(ctx, from, to, false)
		}
		if err != nil {
			p.deleted(table)
			return err
		}
	}
	return nil
}
