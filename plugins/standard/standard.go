// Package standard lists what imgate ships. Read this first; to make a build
// of your own, copy cmd/imgate/main.go and pass a list of your own.
package standard

import (
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/free"
	"github.com/imgate/imgate/plugins/hep"
	"github.com/imgate/imgate/plugins/ladder"
	"github.com/imgate/imgate/plugins/ledger"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/plugins/otlp"
	"github.com/imgate/imgate/plugins/pebble"
	"github.com/imgate/imgate/plugins/postgres"
	"github.com/imgate/imgate/plugins/rego"
	"github.com/imgate/imgate/plugins/webhook"
	"github.com/imgate/imgate/transports/loop"
	"github.com/imgate/imgate/transports/sip"
	"github.com/imgate/imgate/transports/sip/ua"
	"github.com/imgate/imgate/transports/smpp"
	"github.com/imgate/imgate/transports/smpp/load"
	"github.com/imgate/imgate/transports/smpp/smsc"
)

// Plugins are all plugins of the standard build.
var Plugins = []plugin.Definition{
	// Transports: the doors.
	sip.Plugin.With(ua.Commands...),
	smpp.Plugin.With(smsc.Commands...).With(load.Command),
	smpp.Server,
	loop.Plugin,
	// Storages.
	pebble.Plugin,
	postgres.Plugin,
	memory.Plugin,
	// Who decides.
	rego.Plugin,
	// Who the subscribers are, and who takes the money.
	ledger.Accounts,
	ledger.Charging,
	free.Charging,
	// Who wakes apps that sleep.
	webhook.Plugin,
	// Who watches.
	ladder.Plugin,
	hep.Plugin,
	otlp.Plugin,
}
