package engine

import (
	"errors"
	"reflect"
	"time"

	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
)

// Config is a checked configuration.
type Config struct {
	Node        string
	DataDir     string
	Storage     Instance
	Policy      Instance
	Accounts    Instance
	Charging    Instance
	Push        Instance // zero: apps that sleep aren't woken
	Observers   []Instance
	Transports  []Instance
	AdminListen string
	Limits      Limits
	Zone        *time.Location // the operator's; nil: UTC
	Retention   time.Duration  // how long the record of a message is kept, from its receipt; 0: the default
	// Notifications is how long a notification of a message's end (RFC 5438) waits
	// for whom it is for; 0: the default.
	Notifications time.Duration

	// Place says where a key stands, for errors: "imgate.yaml:12". Nil: unknown.
	Place func(key string) string
}

// Limits bound what is kept for others. What is zero has the default.
type Limits = pipeline.Limits

// Instance is a plugin with its settings, as Definition.NewConfig returned and
// the operator filled them in.
type Instance struct {
	Name     string // of a transport or an observer: its key in the configuration; else its kind
	Plugin   plugin.Definition
	Settings plugin.Config
}

// Key is where the instance stands in the configuration: "transports.sip".
func (i Instance) Key() string {
	switch i.Plugin.Kind {
	case plugin.KindTransport:
		return "transports." + i.Name
	case plugin.KindObserver:
		return "observers." + i.Name
	}
	return string(i.Plugin.Kind)
}

// same tells whether two instances of one name would do the same.
func (i Instance) same(other Instance) bool {
	return i.Plugin.Name == other.Plugin.Name && reflect.DeepEqual(i.Settings, other.Settings)
}

// KeyError is an error that a value of the configuration brought about: a port
// that is taken, a policy that doesn't compile.
type KeyError struct {
	Key   string // "transports.sip"
	Place string // where it stands: "imgate.yaml:12"; empty: unknown
	Err   error
}

// Error returns "imgate.yaml:12: transports.sip: " and what is wrong.
func (e *KeyError) Error() string {
	text := e.Key + ": " + e.Err.Error()
	if e.Place == "" {
		return text
	}
	return e.Place + ": " + text
}

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

func isKeyError(err error) bool {
	_, ok := errors.AsType[*KeyError](err)
	return ok
}

// wrong makes a KeyError of an error that isn't nil. What the plugin blames is
// nearer than its section.
func (c Config) wrong(key string, err error) error {
	if err == nil {
		return nil
	}
	at := key
	if invalid, ok := errors.AsType[*plugin.InvalidKey](err); ok {
		at += "." + invalid.Key
	}
	wrong := &KeyError{Key: key, Err: err}
	if c.Place != nil {
		wrong.Place = c.Place(at)
	}
	return wrong
}
