// Package smpp lists the transports that speak SMPP (3.4, and peers of 3.3 and
// 5.0): a client, for which an SMSC is the next hop, and a server, to which ESMEs
// bind. It knows how they are called and nothing else.
package smpp

import (
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/client"
	"github.com/imgate/imgate/transports/smpp/server"
)

// protocol is what both speak: a policy's table of MIME types has it as a key.
const protocol = "smpp"

// Plugin is the transport that binds to an SMSC: each vendor is an instance.
var Plugin = plugin.DefineTransport("smpp", "SMPP client: binds to an SMSC, hands it messages and takes those of phones", client.Defaults, client.Open)

// Server is the transport to which ESMEs bind.
var Server = plugin.DefineTransport("smpp-server", "SMPP server: ESMEs bind to us, submit messages and get them", server.Defaults, server.Open).
	AsRegistrar().Speaking(protocol)
