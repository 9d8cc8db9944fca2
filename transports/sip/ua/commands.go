package ua

import (
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/load"
)

// Commands are what this package adds to the imgate command line.
var Commands = []plugin.Command{
	{
		Path: "send", Args: "FROM TO TEXT",
		Short: "send a message as an account and say what became of it",
		Long: "Sends TEXT from one address to another, or to a telephone number, over SIP, as a phone would, and says in words what the server answered. " +
			"TEXT \"-\" is read from standard input, at most 64 KiB. The exit status is 0 if the message was delivered or accepted." + secrecy,
		Setup: setupSend,
	},
	{
		Path: "listen", Args: "ADDRESS",
		Short: "register as an account and print the messages that arrive",
		Long: "Registers ADDRESS over SIP, as a phone would, and prints each message on a line until it is interrupted. " +
			"Over a connection it keeps the connection alive, and makes another one when it breaks." + secrecy,
		Setup: setupListen,
	},
	load.Command,
}
