package pebble

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// minFree is how much must be free on the disk for anything to be written,
	// in octets: room for Pebble to write what it has in memory to a table.
	minFree = 64 << 20
	// spaceKnownFor is how long an answer about the free space is believed. In
	// that time far less than minFree is written.
	spaceKnownFor = 200 * time.Millisecond
)

// space watches that Pebble has room.
type space struct {
	fs      vfs.FS
	dir     string
	checked time.Time
	verdict error
}

// check returns an error if less than minFree is free.
func (s *space) check(now time.Time) error {
	if now.Sub(s.checked) >= spaceKnownFor {
		s.checked, s.verdict = now, s.look()
	}
	return s.verdict
}

func (s *space) look() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", s.dir, err)
	}
	if usage.AvailBytes < minFree {
		return fmt.Errorf("the disk of %s is full: %d MiB are free, %d MiB are needed", s.dir, usage.AvailBytes>>20, minFree>>20)
	}
	return nil
}
