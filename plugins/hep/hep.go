// Package hep copies what is sent and received to a Homer server in HEP3, the
// Homer Encapsulation Protocol ("HEP3 Network Protocol Specification", rev. 37).
//
// It must not know any protocol beyond its number in HEP. The copies contain
// all of each packet: what people wrote, and what devices prove themselves
// with. That is why nobody has it who doesn't configure it, and why the way to
// the server should be the operator's own: HEP itself hides nothing.
package hep

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"

	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the plugin.
var Plugin = plugin.DefineObserver("hep", "copies all packets to a Homer server (HEP3)",
	Config{Server: "udp://127.0.0.1:9060", CaptureID: 2001}, open)

// Limits of a key or name in a packet, in octets.
const maxText = 255

// Config says where the copies go and how they are signed.
type Config struct {
	Server    string `yaml:"server" doc:"where Homer listens: udp://host:port or tcp://host:port"`
	CaptureID int64  `yaml:"capture_id" doc:"tells capture agents apart, 1 to 4,294,967,295"`
	Node      string `yaml:"node" doc:"this agent's name in Homer; empty: the node's"`
	Password  string `yaml:"password" doc:"sent along, in the clear; empty: none"`
}

// Validate refuses what can't be reached or said.
func (c Config) Validate() error {
	var errs []error
	wrong := func(key, expected string) {
		errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
	}
	if _, _, err := c.server(); err != nil {
		wrong("server", `an address such as "udp://127.0.0.1:9060" or "tcp://homer.example.com:9060"`)
	}
	if c.CaptureID < 1 || c.CaptureID > math.MaxUint32 {
		wrong("capture_id", fmt.Sprintf("a number from 1 to %d", uint32(math.MaxUint32)))
	}
	if len(c.Node) > maxText {
		wrong("node", fmt.Sprintf("at most %d octets", maxText))
	}
	if len(c.Password) > maxText {
		wrong("password", fmt.Sprintf("at most %d octets", maxText))
	}
	return errors.Join(errs...)
}

// server returns the network and the address to dial.
func (c Config) server() (network, address string, err error) {
	u, err := url.Parse(c.Server)
	if err != nil {
		return "", "", err
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return "", "", errors.New("neither udp://host:port nor tcp://host:port")
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return "", "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", "", errors.New("no host or no port")
	}
	return u.Scheme, u.Host, nil
}

// agent is the observer.
type agent struct {
	header header
	limit  int // octets of one packet in HEP
	queue  *queue
	sender *sender

	truncated *plugin.Counter
}

func open(_ context.Context, env plugin.Env, c Config) (plugin.Observer, error) {
	network, address, err := c.server()
	if err != nil {
		return nil, err
	}
	a := &agent{
		header:    newHeader(c, env.Node),
		limit:     maxPacket,
		queue:     newQueue(),
		truncated: env.Metrics.Counter("hep_truncated_total", "Packets that were cut to fit into a HEP packet."),
	}
	if network == "udp" {
		a.limit = maxDatagram
	}
	a.sender = newSender(network, address, a.queue, env)
	env.Metrics.Gauge("hep_queue_packets", "Packets that wait to be sent to the Homer server.",
		func() float64 { return float64(a.queue.len()) })
	go a.sender.run()
	return a, nil
}

// Packet queues a copy, unless HEP has no number for its protocol, or too much
// waits already.
func (a *agent) Packet(p *plugin.Packet) {
	kind, ok := protocolType(p.Protocol)
	if !ok {
		return
	}
	encoded, cut := a.header.encode(p, kind, a.limit)
	if cut {
		a.truncated.Inc()
	}
	if !a.queue.put(encoded) {
		a.sender.dropped.Inc()
	}
}

// Step is not what Homer is for.
func (a *agent) Step(*plugin.Step) {}

// Close sends what waits, for a second at most, and lets go.
func (a *agent) Close() error {
	a.sender.close()
	return nil
}
