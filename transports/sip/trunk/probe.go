package trunk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

var errOutOfService = errors.New("the next hop doesn't answer OPTIONS")

// probeWithin bounds one probe, of all servers together.
const probeWithin = 10 * time.Second

// health is what is known of the next hop.
type health struct {
	down   atomic.Bool // nothing is sent
	missed atomic.Bool // a message has found no way since one got through

	mu       sync.Mutex
	failures int // probes without an answer, the last ones
}

// reached notes that the next hop has answered, and has what waits for it go on.
func (h *health) reached(gate plugin.Gate) {
	if h.missed.Load() && h.missed.Swap(false) {
		gate.Reachable()
	}
}

// keepProbing asks the next hop whether it is there.
func (t *Trunk) keepProbing(ctx context.Context, w *work) {
	ticker := time.NewTicker(t.config.Probe.Every)
	defer ticker.Stop()
	for {
		t.probe(ctx, w)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (t *Trunk) probe(ctx context.Context, w *work) {
	ctx, cancel := context.WithTimeout(ctx, min(probeWithin, t.config.Probe.Every))
	defer cancel()
	t.note(t.ask(ctx, w), w.gate)
}

// note takes down what a probe has found: why the next hop isn't there, or nil.
func (t *Trunk) note(missing error, gate plugin.Gate) {
	h := &t.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if missing != nil {
		h.failures++
		if h.failures >= t.config.Probe.Failures && !h.down.Swap(true) {
			t.log.Warn("next hop doesn't answer; messages wait", "next_hop", t.config.NextHop, "probes", h.failures, "error", missing)
		}
		return
	}
	h.failures = 0
	if h.down.Swap(false) {
		t.log.Info("next hop answers again", "next_hop", t.config.NextHop)
		h.missed.Store(true) // also what another node had wait for it
	}
	h.reached(gate)
}

// ask sends OPTIONS to the next hop (RFC 3261 §11), and returns nil if one of its
// servers is there, else why the last one isn't.
func (t *Trunk) ask(ctx context.Context, w *work) error {
	hops, err := w.resolver.Hops(ctx, *t.next)
	if err != nil {
		return err
	}
	hops = hops[:min(len(hops), maxTried)]
	for i, hop := range hops {
		if err = t.askAt(ctx, w, hop, len(hops)-i); err == nil {
			return nil
		}
	}
	return err
}

// askAt asks one server, which has its share of the time that is left. Whatever it
// answers shows that it is there, but for 503, and for what tells that it can't be
// reached: 408 and 430.
func (t *Trunk) askAt(ctx context.Context, w *work, hop wire.Target, left int) error {
	deadline, _ := ctx.Deadline() // that of probe
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	if w.isOurs(hop) {
		return errOurs
	}
	flow, err := w.endpoint.Connect(ctx, hop)
	if err != nil {
		return err
	}
	response, err := w.endpoint.Do(ctx, flow, t.options())
	if err != nil {
		return fmt.Errorf("%s %s: %w", hop.Network, hop.Address, err)
	}
	switch response.Status {
	case 408, 430, 503:
		return fmt.Errorf("%s %s: answered %d", hop.Network, hop.Address, response.Status)
	}
	t.avoided.remove(hop)
	return nil
}

// options is a probe.
func (t *Trunk) options() wire.Outgoing {
	uri := strings.ToLower(t.next.Scheme) + ":" + hostPort(*t.next)
	return wire.Outgoing{
		Method: "OPTIONS", URI: uri, From: "<sip:" + t.config.Domain + ">;tag=" + rand.Text(), To: "<" + uri + ">",
		CallID: rand.Text(), CSeq: 1, MaxForwards: 70,
	}
}
