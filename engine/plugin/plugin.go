// Package plugin is the contract between the engine and everything that can be
// exchanged: transports, storages, accounts, charging, policies, push servers and
// observers. An integrator imports this package and message, nothing else of ours.
//
// A plugin is a value, not a side effect of an import:
//
//	var Plugin = plugin.DefineTransport("loop", "gives back what it is given", Config{Depth: 16}, New)
//
// Three moments make up its life. New opens it and may fail; then its methods
// work, from any goroutine; Close (for a transport: the return of Serve) lets
// go of everything. What this contract promises has a case in plugintest; what
// has no case there is not promised.
//
// The package must not know how the engine works, nor any protocol.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
)

// Kind says which of the seven roles a plugin plays.
type Kind string

// The kinds, named as the keys of the configuration file are.
const (
	KindTransport Kind = "transport"
	KindStorage   Kind = "storage"
	KindAccounts  Kind = "accounts"
	KindCharging  Kind = "charging"
	KindPolicy    Kind = "policy"
	KindObserver  Kind = "observer"
	KindPush      Kind = "push"
)

// Config is a plugin's configuration: a struct whose exported fields carry a
// `yaml:"key"` tag. The value given to Define holds the defaults; what the
// operator writes is laid over a copy of it, and a key that the struct doesn't
// have is an error. Validate then sees the result; for each wrong value it
// reports an *InvalidKey, several joined with errors.Join.
type Config interface{ Validate() error }

// InvalidKey is a configuration value that can't be used.
type InvalidKey struct {
	Key      string // as in the file, below the plugin's section: "listen", "limits.body"
	Expected string // what would be right, for the operator: `an address such as "udp://127.0.0.1:5060"`
}

// Error names the key and what was expected.
func (e *InvalidKey) Error() string { return fmt.Sprintf("%s: expected %s", e.Key, e.Expected) }

// Mistakes takes apart what errors.Join joined, also within what was joined: each
// is for the operator to mend. nil has none.
func Mistakes(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, Mistakes(e)...)
	}
	return all
}

// Definition is a plugin as a value. Make one with a Define function.
type Definition struct {
	Name     string // as operators write it after "plugin:"
	Kind     Kind
	Doc      string    // one line, lower case, for lists
	Commands []Command // what it adds to the imgate command line
	// Registrar: a transport whose recipients register and are reached by
	// their bindings alone. Any other is a way to whoever the next hop serves.
	Registrar bool
	// Protocol: what a transport speaks, the key of a plan's MIME table. Several
	// plugins may speak the same.
	Protocol string
	// Sheets say how the rows read that a technology keeps in Env.Tables.
	Sheets []Sheet

	newConfig func() any
	open      func(context.Context, Env, any) (any, error)
}

// With returns the definition with commands of its own.
func (d Definition) With(commands ...Command) Definition {
	d.Commands = append(d.Commands[:len(d.Commands):len(d.Commands)], commands...)
	return d
}

// Showing returns the definition with sheets of its tables.
func (d Definition) Showing(sheets ...Sheet) Definition {
	d.Sheets = append(d.Sheets[:len(d.Sheets):len(d.Sheets)], sheets...)
	return d
}

// AsRegistrar returns the definition of a transport whose recipients register.
func (d Definition) AsRegistrar() Definition {
	d.Registrar = true
	return d
}

// Speaking returns the definition of a transport whose protocol has another name
// than the plugin.
func (d Definition) Speaking(protocol string) Definition {
	d.Protocol = protocol
	return d
}

// NewConfig returns a pointer to a fresh configuration struct that holds the
// defaults. Whoever fills it in passes it to Open.
func (d Definition) NewConfig() Config { return d.newConfig().(Config) }

// Open calls the plugin's New with what NewConfig returned. T is the interface
// of the definition's kind.
func Open[T any](ctx context.Context, d Definition, env Env, config Config) (T, error) {
	var none T
	opened, err := d.open(ctx, env, config)
	if err != nil {
		return none, fmt.Errorf("%s plugin %q: %w", d.Kind, d.Name, err)
	}
	instance, ok := opened.(T)
	if !ok {
		return none, fmt.Errorf("plugin %q is a %s plugin and can't be used as %T", d.Name, d.Kind, none)
	}
	return instance, nil
}

// DefineTransport defines a transport. Each listener, trunk or vendor in the
// configuration is an instance of its own.
func DefineTransport[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Transport, error)) Definition {
	return define(KindTransport, name, doc, defaults, open)
}

// DefineStorage defines a storage.
func DefineStorage[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Storage, error)) Definition {
	return define(KindStorage, name, doc, defaults, open)
}

// DefineAccounts defines who knows the subscribers.
func DefineAccounts[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Accounts, error)) Definition {
	return define(KindAccounts, name, doc, defaults, open)
}

// DefineCharging defines who takes the money.
func DefineCharging[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Charging, error)) Definition {
	return define(KindCharging, name, doc, defaults, open)
}

// DefinePolicy defines where the policies come from that decide.
func DefinePolicy[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (PolicySource, error)) Definition {
	return define(KindPolicy, name, doc, defaults, open)
}

// DefineObserver defines somebody who watches. There may be several.
func DefineObserver[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Observer, error)) Definition {
	return define(KindObserver, name, doc, defaults, open)
}

// DefinePush defines who has sleeping apps woken.
func DefinePush[C Config](name, doc string, defaults C, open func(context.Context, Env, C) (Pusher, error)) Definition {
	return define(KindPush, name, doc, defaults, open)
}

func define[C Config, T any](kind Kind, name, doc string, defaults C, open func(context.Context, Env, C) (T, error)) Definition {
	return Definition{
		Name: name, Kind: kind, Doc: doc, Protocol: name,
		newConfig: func() any { c := defaults; return &c },
		open: func(ctx context.Context, env Env, config any) (any, error) {
			c, ok := config.(*C)
			if !ok {
				return nil, fmt.Errorf("configuration is a %T, expected %T: use NewConfig", config, c)
			}
			return open(ctx, env, *c)
		},
	}
}

// Env is what the engine gives an instance when it opens it.
type Env struct {
	Instance string // its name in the configuration; for kinds that exist once, the name of the kind
	Node     string // the name of this node
	DataDir  string // where a plugin may keep files, in a folder named after itself
	Log      *slog.Logger

	// Metrics is the instance's own scope; it ends with the instance. Nil works.
	Metrics *Metrics
	// Observers are to be told of each packet, by transports. Nil works.
	Observers *Observers

	// Admin exists for accounts, charging and observers: a route lasts as long
	// as the instance.
	Admin Admin
	// Tables and Shared exist for accounts and charging only: they are opened
	// when this node becomes the active one and closed when it stops being that,
	// so what they cache is never older than the disk.
	Tables Tables
	Shared *Shared

	// Sheets exist for storages: how the rows read that will be written.
	Sheets []Sheet
	// Transports exist for policies: the names of the configured instances and of
	// their plugins, which plans may name. Nil: they aren't known.
	Transports []string
}

// Tables are a technology's own tables: a namespace of its own in the engine's
// storage, written by the engine's committer, so that a plugin that keeps
// books needs no database. Table names are the plugin's choice, [a-z]+.
type Tables interface {
	// Commit puts the changes behind everything that was committed before, all
	// or nothing, and returns at once. They will be on disk, in this order,
	// unless this node stops being the active one; Wait tells.
	Commit(changes []Change) Commitment
	// Scan reads as Storage.Scan does. What Commit was given and is not yet on
	// disk may be missing.
	Scan(ctx context.Context, table string, from, to []byte, n int) ([]Change, error)
}

// Commitment is a promise that changes will be on disk.
type Commitment interface {
	// Wait returns nil once they are; otherwise why not, or why it stopped waiting.
	Wait(context.Context) error
}

// Admin lets a plugin answer a part of the admin API.
type Admin interface {
	// Handle serves a pattern of net/http.ServeMux below /v1, such as
	// "GET /accounts". Callers have been authenticated.
	Handle(pattern string, handler http.HandlerFunc)
}

// Shared is where kinds of one technology that work on the same books (ledger:
// accounts and charging) meet in one process.
type Shared struct {
	mu     sync.Mutex
	values map[string]any
}

// Share returns the value that is shared under the technology's name, and
// makes it if this is the first call.
func Share[T any](env Env, technology string, open func() (T, error)) (T, error) {
	env.Shared.mu.Lock()
	defer env.Shared.mu.Unlock()
	if v, ok := env.Shared.values[technology].(T); ok {
		return v, nil
	}
	v, err := open()
	if err != nil {
		return v, err
	}
	if env.Shared.values == nil {
		env.Shared.values = map[string]any{}
	}
	env.Shared.values[technology] = v
	return v, nil
}

// ErrFenced is what every writer gets that acts on an older lease than the
// newest: this node is no longer the active one and may change nothing.
var ErrFenced = errors.New("fenced: a newer lease exists")
