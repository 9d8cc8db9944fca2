package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// tenure is the time for which this node holds a lease: one term after the
// other, as reloads want it.
type tenure struct {
	fence  plugin.Fence
	began  time.Time // when the lease was asked for
	since  time.Time // when the first term began
	secret [32]byte  // of the installation
}

// of is what a transport instance may know of it: its key is derived, so that
// no instance can do harm with another's.
func (t tenure) of(instance string) plugin.Tenure {
	return plugin.Tenure{Fence: t.fence, Since: t.since, Key: t.derive("transports." + instance)}
}

// derive makes a key of the secret, for one purpose.
func (t tenure) derive(purpose string) [32]byte {
	mac := hmac.New(sha256.New, t.secret[:])
	mac.Write([]byte(purpose))
	return [32]byte(mac.Sum(nil))
}
