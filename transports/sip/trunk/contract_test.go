package trunk

import (
	"strconv"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestContract(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			plugintest.SendingTransport(t, func(plugintest.T) plugintest.TransportHarness {
				n := neighbourhood{network: network}
				return plugintest.TransportHarness{Open: n.open, Route: n.route}
			})
		})
	}
}

// neighbourhood is a trunk whose routes lead to servers of their own.
type neighbourhood struct{ network string }

func (n neighbourhood) open(t plugintest.T) plugin.Transport {
	config := local()
	config.Limits.UDPMessage = wire.MaxDatagram
	trunk, err := New(t.Context(), plugin.Env{Instance: "trunk"}, config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return trunk
}

func (n neighbourhood) route(t plugintest.T, hear func(plugintest.Heard) plugintest.Reply) plugin.Route {
	s := serve(t, func(x *wire.Exchange) *wire.Reply {
		go func() { // hear may block
			if reply := hear(heardIn(x)); reply != plugintest.Silence {
				x.Answer(replyFor(reply))
			}
		}()
		return nil
	}, n.network)
	return plugin.Route{Transport: "trunk", Address: s.address(0) + ";transport=" + n.network}
}

func replyFor(r plugintest.Reply) wire.Reply {
	switch r {
	case plugintest.Refused:
		return wire.Reply{Status: 603}
	case plugintest.Later:
		return wire.Reply{Status: 480}
	case plugintest.Elsewhere:
		return wire.Reply{Status: 503}
	}
	return wire.Reply{Status: 200}
}

func heardIn(x *wire.Exchange) plugintest.Heard {
	h := plugintest.Heard{
		Reference:   x.CallID + " " + strconv.Itoa(int(x.CSeq)) + " " + x.FromTag,
		From:        partyIn(x.From.URI),
		ContentType: x.Get("Content-Type"), Body: x.Body,
	}
	to, _ := wire.ParseNameAddr(x.Get("To"))
	h.To = partyIn(to.URI)
	for _, field := range x.Headers() {
		h.Headers = append(h.Headers, message.Header{Name: field.Name, Value: field.Value})
	}
	return h
}

func partyIn(uri string) message.Address {
	a, _ := message.ParseAddress(strings.TrimSuffix(uri, ";user=phone"))
	return a
}
