package postgres

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// sessions are a few connections for calls that are short and may be repeated.
// One that breaks is let go of at once: a pool that waited until the server has
// taken note would have none left while the network is down.
type sessions struct {
	config *config
	name   string
	link   *link
	slots  chan struct{} // as many as there may be at once

	mu     sync.Mutex
	idle   []*pgx.Conn
	closed bool
}

func newSessions(c *config, s schema, l *link, n int) *sessions {
	return &sessions{config: c, name: s.sessionName(), link: l, slots: make(chan struct{}, n)}
}

// call is what is done in a session. It may be called twice.
type call func(context.Context, *pgx.Conn) error

// do makes a call. If the connection, which may have lain idle, is found broken
// the call is repeated on a new one.
func (s *sessions) do(ctx context.Context, c call) error {
	idle, err := s.once(ctx, c)
	if broken(err) {
		s.forget()
	}
	if idle && broken(err) && ctx.Err() == nil {
		s.link.replaced.Inc()
		_, err = s.once(ctx, c)
	}
	return s.link.told(explained(err))
}

// once makes a call, and tells whether the connection had lain idle.
func (s *sessions) once(ctx context.Context, c call) (idle bool, err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return false, fmt.Errorf("wait for a session with the database: %w", ctx.Err())
	}
	conn, idle, err := s.take(ctx)
	if err != nil {
		return idle, err
	}
	err = c(ctx, conn)
	s.giveBack(conn, err)
	return idle, err
}

func (s *sessions) take(ctx context.Context) (conn *pgx.Conn, idle bool, err error) {
	s.mu.Lock()
	closed := s.closed
	if n := len(s.idle); n > 0 {
		conn, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	if closed {
		return nil, false, errClosed
	}
	if conn != nil {
		return conn, true, nil
	}
	conn, err = connect(ctx, s.config, s.name)
	return conn, false, err
}

func (s *sessions) giveBack(conn *pgx.Conn, err error) {
	s.mu.Lock()
	keep := !s.closed && !broken(err) && !conn.IsClosed()
	if keep {
		s.idle = append(s.idle, conn)
	}
	s.mu.Unlock()
	if !keep {
		disconnect(conn)
	}
}

// forget lets go of all that lie idle: what broke one has broken them too.
func (s *sessions) forget() {
	s.mu.Lock()
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, conn := range idle {
		disconnect(conn)
	}
}

func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.forget()
}
