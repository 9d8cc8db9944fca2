package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgate/imgate/engine/plugin"
)

// link knows whether the database can be reached, and says when that changes.
type link struct {
	log   *slog.Logger
	where string

	mu       sync.Mutex
	answered bool      // the last call
	failed   time.Time // when a call failed last
	lost     bool      // this was said

	replaced *plugin.Counter
}

func newLink(env plugin.Env, c *config) *link {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &link{log: log, where: place(c), answered: true}
	l.replaced = env.Metrics.Counter("postgres_reconnects_total", "Connections to the database that broke and were replaced.")
	env.Metrics.Gauge("postgres_connected", "Whether the database answered when it was last asked.", func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(flag(l.answered))
	})
	return l
}

// steadyAfter is for how long no call may fail before it is said that the
// database answers again: some may succeed while others don't.
const steadyAfter = 2 * time.Second

// told notes how a call ended, and returns its error as it is.
func (l *link) told(err error) error { return l.toldAt(time.Now(), err) }

func (l *link) toldAt(now time.Time, err error) error {
	if err != nil && !broken(err) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = err == nil
	switch {
	case err != nil && !l.lost:
		l.lost = true
		l.log.Error("the database doesn't answer", "place", l.where, "reason", err)
	case err == nil && l.lost && now.Sub(l.failed) >= steadyAfter:
		l.lost = false
		l.log.Info("the database answers again", "place", l.where)
	}
	if err != nil {
		l.failed = now
	}
	return err
}

// explained says more of an error than PostgreSQL does.
func explained(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == stateLockTimeout {
		return fmt.Errorf("%w: another session has locked what is needed, and pg_blocking_pids tells which", err)
	}
	return err
}

// SQLSTATEs: two of our own, and PostgreSQL's (appendix A).
const (
	stateFenced      = "IMG01"
	stateSuperseded  = "IMG02"
	stateLockTimeout = "55P03"
	stateDeadlock    = "40P01"
	stateUnknown     = "40003" // statement_completion_unknown
)

// brokenStates say that the session, and not what it was asked, is at fault.
var brokenStates = []string{
	stateSuperseded,
	"25006", // read_only_sql_transaction: the server became a standby
	"26000", // invalid_sql_statement_name: somebody reset the session
	"57P01", // admin_shutdown
	"57P02", // crash_shutdown
	"57P03", // cannot_connect_now
	"57P05", // idle_session_timeout
	"25P03", // idle_in_transaction_session_timeout
	"25P04", // transaction_timeout
	"53300", // too_many_connections
}

// broken tells whether an error says that there is no connection, rather than
// what the database thinks of a statement.
func broken(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errPooler) || errors.Is(err, errClosed) ||
		errors.Is(err, plugin.ErrFenced) || errors.Is(err, plugin.ErrHeld) {
		return false
	}
	if _, unconnected := errors.AsType[*pgconn.ConnectError](err); unconnected {
		return true
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return !ok || isBroken(refused.Code)
}

// isBroken tells it of a SQLSTATE. Those of class 08 are about connections.
func isBroken(state string) bool {
	return strings.HasPrefix(state, "08") || slices.Contains(brokenStates, state)
}

// passing tells whether it makes sense to try again.
func passing(err error) bool {
	if _, refused := errors.AsType[*refusal](err); refused {
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return isBroken(e.Code) || e.Code == stateLockTimeout || e.Code == stateDeadlock
	}
	return broken(err)
}

// refusal is an error about what was found in the database: it is the same
// however often one looks.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }
