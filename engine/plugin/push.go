package plugin

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Pusher has apps woken that sleep: it tells the operator's push server. It is
// opened on every node and used by the active one.
type Pusher interface {
	// Wake asks that the app behind a binding be woken, so that it registers
	// again. It is called once for all messages that wait for a binding, and
	// again only if the app hasn't registered for a while and another one waits.
	// An error is a *message.Failure: a temporary one is tried again.
	Wake(ctx context.Context, s Sleeper) error
	// Keep is how long a binding that has a Push is kept once it has expired, or
	// its flow is gone, at most MaxKeep.
	Keep() time.Duration
	// Close lets go. No other method runs or follows.
	Close() error
}

// MaxKeep is the greatest Pusher.Keep that counts.
const MaxKeep = 90 * 24 * time.Hour

// Push is how an app is woken (RFC 8599 §6): the parameters of its contact.
type Push struct {
	Provider string // pn-provider: apns, fcm, webpush, …; empty: it can't be woken
	Param    string // pn-param: which app, for the provider
	ID       string // pn-prid: which of its installations
}

// Sleeper is an app that is to be woken.
type Sleeper struct {
	Push
	Account string          // the account's ID
	AOR     message.Address // that it registered
	Device  string          // as in its Binding
}
