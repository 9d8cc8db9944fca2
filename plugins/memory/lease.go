package memory

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func (s *storage) Acquire(ctx context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	var fence plugin.Fence
	err := s.write(ctx, func(d *Disk) (err error) {
		fence, err = d.lease.Acquire(node, ttl, func(plugin.Fence) error { return nil })
		return err
	})
	return fence, err
}

func (s *storage) Renew(ctx context.Context, f plugin.Fence, ttl time.Duration) error {
	return s.write(ctx, func(d *Disk) error { return d.lease.Renew(f, ttl) })
}

func (s *storage) Release(ctx context.Context, f plugin.Fence) error {
	return s.write(ctx, func(d *Disk) error {
		d.lease.Release(f)
		return nil
	})
}

func (s *storage) Handover(ctx context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	return s.write(ctx, func(d *Disk) error { return d.lease.Handover(f, to, ttl) })
}

func (s *storage) Lease(ctx context.Context) (plugin.Lease, error) {
	if err := s.usable(ctx); err != nil {
		return plugin.Lease{}, err
	}
	return s.disk.lease.Lease(), nil
}

func (s *storage) Attend(ctx context.Context, node, note string) ([]plugin.Attendant, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	return s.disk.lease.Attend(node, note), nil
}
