// Package free is the charging plugin of those who don't charge: everybody may
// send, nothing is reserved and nothing is kept. It knows no accounts.
package free

import (
	"context"

	"github.com/imgate/imgate/engine/plugin"
)

// Charging is the plugin.
var Charging = plugin.DefineCharging("free", "takes no money and keeps no records", Config{}, open)

// Config is empty: there is nothing to configure.
type Config struct{}

// Validate has nothing to refuse.
func (Config) Validate() error { return nil }

type charging struct{}

func open(context.Context, plugin.Env, Config) (plugin.Charging, error) { return charging{}, nil }

// Authorize says yes.
func (charging) Authorize(context.Context, plugin.Request) (plugin.Authorization, error) {
	return plugin.Authorization{}, nil
}

// Settle has nothing to settle.
func (charging) Settle(context.Context, []plugin.Record) ([]plugin.Change, error) { return nil, nil }

// Close has nothing to let go of.
func (charging) Close() error { return nil }
