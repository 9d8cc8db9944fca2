package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bounds of what a connection is waited for.
const (
	connectWithin = 2 * time.Second // for each host
	closeWithin   = time.Second
	// nextHost is how long a host may say nothing before the next is asked too.
	// One whose machine is gone never says anything, and the calls about the
	// lease have a second.
	nextHost = 200 * time.Millisecond
)

// connect opens a session of a name with the first host that takes writes.
// Those before it have a head start each, so that all nodes choose the same of
// two that do.
func connect(ctx context.Context, to *config, name string) (*pgx.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hosts := hostsOf(to)
	answers := make(chan answer, len(hosts))
	var failures []error
	asked := 0
	for {
		var patience <-chan time.Time
		if asked < len(hosts) {
			go ask(ctx, hosts[asked], name, answers)
			asked++
		}
		if asked < len(hosts) {
			patience = time.After(nextHost)
		}
		select {
		case a := <-answers:
			if a.err == nil {
				go dismiss(answers, asked-len(failures)-1)
				return a.conn, nil
			}
			failures = append(failures, a.err)
			if len(failures) == len(hosts) {
				return nil, fmt.Errorf("connect: %w", oneLine{errors.Join(failures...)})
			}
		case <-patience:
		}
	}
}

// answer is what came of asking one host.
type answer struct {
	conn *pgx.Conn
	err  error
}

// ask opens a session with one host. It ends with ctx, or after connectWithin.
func ask(ctx context.Context, host *config, name string, answers chan<- answer) {
	host.RuntimeParams["application_name"] = name
	conn, err := pgx.ConnectConfig(ctx, host)
	if err == nil {
		if err = suitable(ctx, conn); err != nil {
			disconnect(conn)
			err = fmt.Errorf("%s: %w", place(host), err)
		}
	}
	answers <- answer{conn, err}
}

// dismiss closes the sessions of hosts that answered too late.
func dismiss(answers <-chan answer, n int) {
	for range n {
		if a := <-answers; a.err == nil {
			disconnect(a.conn)
		}
	}
}

// oneLine is an error whose text is one.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLine) Unwrap() error { return e.error }

// hostsOf returns a configuration for each host of a URL, in its order.
func hostsOf(c *config) []*config {
	var hosts []*config
	first := c.Copy()
	rest := first.Fallbacks
	first.Fallbacks = nil
	hosts = append(hosts, first)
	for _, f := range rest {
		last := hosts[len(hosts)-1]
		if f.Host == last.Host && f.Port == last.Port { // the same without TLS
			last.Fallbacks = append(last.Fallbacks, f)
			continue
		}
		next := c.Copy()
		next.Host, next.Port, next.TLSConfig, next.Fallbacks = f.Host, f.Port, f.TLSConfig, nil
		hosts = append(hosts, next)
	}
	return hosts
}

var (
	// errPooler: what follows a write must come to the same session.
	errPooler   = errors.New("there is a connection pooler in between, such as PgBouncer: connect to PostgreSQL itself")
	errReadOnly = errors.New("it takes no writes: it is a replica, or default_transaction_read_only is on")
)

// suitable refuses a session that can't write, or that isn't with the server
// itself: a pooler makes up a process number of its own.
func suitable(ctx context.Context, conn *pgx.Conn) error {
	var pid uint32
	var readOnly bool
	err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_setting('transaction_read_only')::boolean", pgx.QueryExecModeExec).Scan(&pid, &readOnly)
	switch {
	case err != nil:
		return err
	case pid != conn.PgConn().PID():
		return errPooler
	case readOnly:
		return errReadOnly
	}
	return nil
}

// disconnect takes leave of the server. Nobody waits for it to answer.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin) // also after what ended the caller's context
	defer cancel()
	_ = conn.Close(ctx) // it is gone either way
}
