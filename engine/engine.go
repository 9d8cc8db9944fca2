// Package engine runs the gateway: it opens the plugins in order, lets this
// node become the active one, runs the pipeline while it is, exchanges what a
// new configuration changes, and closes everything in reverse. It knows
// plugins only by their contract.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/revisions"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/engine/standby"
)

// TokenFile is where the admin API's token is, below the data directory.
const TokenFile = "admin.token"

// Options are what the engine needs besides its configuration.
type Options struct {
	Metrics *plugin.Metrics // nil: nothing is counted
	Version string          // of the program, for whoever asks
	// Load reads the configuration anew, for Refresh; nil: there is nothing to
	// read.
	Load func() (Config, error)
	// Role is told when this node begins to take traffic, and when it begins to
	// wait for the lease: another node has it, or the storage fails. It must not
	// block. It may be nil.
	Role func(active bool)
}

// Engine is a node. Make one with New, add pages, then Run.
type Engine struct {
	log     *slog.Logger
	options Options
	node    string
	started func(string)
	own     *admin.Scope
	pages   map[string]http.HandlerFunc

	admin     *admin.Server
	storage   *watchedStorage
	book      *revisions.Book
	observers plugin.Observers
	pusher    pusher
	seen      *spool.SeenTable
	unfollow  func() // ends what follow began

	// reloads is held by a reload, from its beginning to its end. turn is held by
	// whoever changes what is in force: a reload once it has opened what is new,
	// or the beginning of a term, which mustn't wait for that. Both guard config,
	// source and watchers: who has one of them may read, who has both may write.
	reloads  chan struct{}
	turn     chan struct{}
	config   Config
	source   *revisions.Source // of the policies
	watchers []*watcher

	slots   atomic.Pointer[[]*slot]
	up      chan struct{}           // closed when all doors are open for the first time
	open    context.Context         // of the doors and the admin API
	leading context.Context         // ends when the node is to end
	fail    context.CancelCauseFunc // ends it
	serving sync.WaitGroup

	begun      time.Time // when New was called
	member     *standby.Member
	attendance *standby.Attendance
	counting   counting

	beginning atomic.Bool               // a term begins
	term      atomic.Pointer[term]      // nil: this node isn't the active one
	ending    atomic.Pointer[time.Time] // since when a term comes to rest; nil: none does
	// noTerm is since when, and why, this node has been waiting for the lease;
	// nil: it has it, or has yet to ask for it.
	noTerm   atomic.Pointer[idleness]
	telling  sync.Mutex
	role     string // that was told last; guarded by telling
	announce sync.Once
	pulse    pulse
}

// idleness is that this node waits for the lease.
type idleness struct {
	since time.Time
	err   error // what is wrong; nil: another node has it
}

// New returns a node that Run runs.
func New(c Config, log *slog.Logger, o Options) *Engine {
	if o.Role == nil {
		o.Role = func(bool) {}
	}
	e := &Engine{
		log: log, options: o, node: c.Node, config: c, own: admin.NewScope(), pages: map[string]http.HandlerFunc{},
		turn: make(chan struct{}, 1), reloads: make(chan struct{}, 1), up: make(chan struct{}), pulse: newPulse(), begun: time.Now(),
	}
	e.slots.Store(&[]*slot{})
	e.routes()
	return e
}

// Handle adds a route below /v1 to the admin API, such as "GET /thing", for
// callers with the token. It is called before Run; a pattern that is taken is
// an error of Run.
func (e *Engine) Handle(pattern string, handler http.HandlerFunc) { e.own.Handle(pattern, handler) }

// HandleOpen adds a page that anybody may read, such as "/metrics". It is
// called before Run.
func (e *Engine) HandleOpen(path string, handler http.HandlerFunc) { e.pages[path] = handler }

// Run runs a node until ctx ends, then lets it come to rest; nil means that it
// ended as it should. started is called once, when the node first takes
// traffic, with the address of the admin API. Run is called once.
func (e *Engine) Run(ctx context.Context, started func(adminAddress string)) error {
	e.started = started
	closers, err := e.openAll(ctx)
	if err == nil {
		err = e.run(ctx)
	}
	for i := len(closers) - 1; i >= 0; i-- {
		err = errors.Join(err, closers[i]())
	}
	return err
}

// openAll opens what lives as long as the process, or until it is exchanged.
// What is to be closed, also after a failure, is returned.
func (e *Engine) openAll(ctx context.Context) (closers []func() error, err error) {
	c := e.config
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, c.wrong("data_dir", err)
	}
	closers = append(closers, e.closeWatchers)
	for _, i := range c.Observers {
		w, err := e.openWatcher(ctx, c, i)
		if err != nil {
			return closers, err
		}
		e.watchers = append(e.watchers, w)
	}
	e.observers.Use(watching(e.watchers))
	env := e.env(c.Storage)
	env.Sheets = sheets(c)
	storage, err := plugin.Open[plugin.Storage](ctx, c.Storage.Plugin, env, c.Storage.Settings)
	if err != nil {
		return closers, c.wrong(c.Storage.Key(), err)
	}
	e.storage = &watchedStorage{Storage: storage}
	closers = append(closers, storage.Close)
	e.seen = spool.NewSeenTable(e.storage)
	e.measure()
	e.join()
	e.openBook()
	if e.source, err = e.openSource(ctx, c); err != nil {
		return closers, err
	}
	closers = append(closers, func() error {
		e.book.Wait()
		return e.source.Close()
	})
	if err := e.book.Start(ctx, e.source); err != nil {
		return closers, c.wrong(c.Policy.Key(), err)
	}
	closers = append(closers, e.pusher.Close)
	o, err := e.openPusher(ctx, c)
	if err != nil {
		return closers, err
	}
	e.pusher.current.Store(o)
	if err := e.openSlots(ctx, c); err != nil {
		return closers, err
	}
	return closers, e.openAdmin(c)
}

func (e *Engine) openSlots(ctx context.Context, c Config) error {
	var slots []*slot
	for _, i := range c.Transports {
		d, err := e.openDoor(ctx, c, i)
		if err != nil {
			return err
		}
		slots = append(slots, e.newSlot(d))
	}
	e.slots.Store(&slots)
	return nil
}

// openAdmin takes the address of the admin API, and opens the routes that are
// known by now.
func (e *Engine) openAdmin(c Config) (err error) {
	e.admin, err = admin.New(c.AdminListen, filepath.Join(c.DataDir, TokenFile), e.log)
	if err != nil {
		return c.wrong("admin.listen", err)
	}
	e.admin.Ready(e.unready)
	e.admin.Inactive(e.elsewhere)
	e.admin.Remark(e.remarks)
	for path, page := range e.pages {
		e.admin.HandleOpen(path, page)
	}
	err = e.admin.Exchange(nil, []*admin.Scope{e.own})
	if err == nil {
		err = c.wrong("observers", e.admin.Exchange(nil, routesOf(e.watchers)))
	}
	if err != nil {
		return errors.Join(err, e.admin.Abandon())
	}
	return nil
}

// env is what an instance gets when it is opened.
func (e *Engine) env(i Instance) plugin.Env {
	labels := []plugin.Label{{Name: "plugin", Value: i.Plugin.Name}, {Name: "section", Value: i.Name}}
	if i.Plugin.Kind == plugin.KindTransport {
		labels = []plugin.Label{{Name: "transport", Value: i.Name}}
	}
	return plugin.Env{
		Instance: i.Name, Node: e.config.Node, DataDir: e.config.DataDir,
		Log:     e.log.With("plugin", i.Plugin.Name, "instance", i.Name),
		Metrics: e.options.Metrics.Scope(labels...), Observers: &e.observers,
	}
}

// run serves all doors and the admin API, and leads while this node may. The
// first of them that fails ends the others. On the way out the doors stay open
// until the term has come to rest: whoever knocks is told to go elsewhere.
func (e *Engine) run(ctx context.Context) error {
	open, shut := context.WithCancel(context.WithoutCancel(ctx))
	defer shut()
	lead, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	e.open, e.leading, e.fail = open, lead, stop

	c := e.config // the address doesn't change
	e.serving.Go(func() {
		if err := e.admin.Serve(open); err != nil {
			stop(c.wrong("admin.listen", err))
		}
	})
	e.serving.Go(func() { e.attendance.Run(open) })
	e.book.Watch(lead)
	for _, s := range *e.slots.Load() {
		e.serve(s.current.Load())
	}
	err := e.lead(lead)
	e.reloads <- struct{}{} // one that is under way ends first; no other begins
	if ctx.Err() == nil {
		err = errors.Join(context.Cause(lead), err)
	}
	shut()
	e.serving.Wait()
	return err
}

// lead waits until all doors are open and then leads while the lease allows.
func (e *Engine) lead(ctx context.Context) error {
	for _, s := range *e.slots.Load() {
		d := s.current.Load()
		if err := d.await(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
	}
	close(e.up)
	e.follow(ctx)
	defer func() { e.unfollow() }()
	return e.member.Run(ctx)
}

// standBy notes that this node takes no traffic, and what is wrong, if anything is.
func (e *Engine) standBy(err error) {
	now := &idleness{since: time.Now(), err: err}
	before := e.noTerm.Load()
	if before != nil {
		now.since = before.since
	}
	e.noTerm.Store(now)
	e.plays(roleStandby)
}

// plays tells which role this node has now, if that is new. A lease may be lost
// in the moment in which a term begins: both come here.
func (e *Engine) plays(role string) {
	e.telling.Lock()
	defer e.telling.Unlock()
	if e.role != role {
		e.role = role
		e.options.Role(role == roleActive)
		e.attendance.Hurry()
	}
}

// storageTrouble is what is wrong with the storage, so that a term can't write or
// none can begin; nil: nothing, as far as that is known.
func (e *Engine) storageTrouble() error {
	if t := e.term.Load(); t != nil {
		if err := t.committer.Failure(); err != nil && !errors.Is(err, plugin.ErrFenced) {
			return err
		}
	}
	why := e.noTerm.Load()
	if why == nil || why.err == nil || isKeyError(why.err) {
		return nil
	}
	return why.err
}

// active is the running term, or why there is none.
func (e *Engine) active() (*term, *message.Failure) {
	t := e.term.Load()
	switch {
	case e.draining():
		return nil, &message.Failure{Reason: message.Draining, Temporary: true, RetryAfter: time.Second}
	case t != nil && e.member.Holds():
		return t, nil
	}
	f := &message.Failure{Reason: message.Standby, Temporary: true, RetryAfter: time.Second}
	if e.member.Holds() {
		f.Reason = message.Overloaded // between two terms: it isn't for clients to look for another node
	}
	if err := e.storageTrouble(); err != nil {
		f.Reason, f.Err = message.StorageDown, err
	}
	return nil, f
}

// isUp tells whether all doors have been open.
func (e *Engine) isUp() bool {
	select {
	case <-e.up:
		return true
	default:
		return false
	}
}

// draining tells whether the node is to end.
func (e *Engine) draining() bool { return e.leading.Err() != nil }

// take waits for reloads or turn. If it returns nil the caller gives it back.
func (e *Engine) take(ctx context.Context, right chan struct{}) error {
	select {
	case <-e.up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case right <- struct{}{}:
		return nil
	case <-e.leading.Done():
		return message.FailForNow(message.Draining, "the node stops")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
