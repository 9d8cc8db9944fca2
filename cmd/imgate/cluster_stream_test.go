//go:build cluster

package main_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// streamPing is how often a device over TCP looks whether its node is there; it
// waits ten seconds for the answer. Of all faults only a frozen node needs that.
const streamPing = 10 * time.Second

// stream is a user's device over TCP that knows all nodes. It is reached over
// its connection alone: when that ends it connects anew, to whichever node is
// active, and registers there.
type stream struct {
	t       *testing.T
	user    string
	agent   *ua.Agent
	keeping sync.WaitGroup
	again   atomic.Int64
}

func newStream(t *testing.T, user string, servers []netip.AddrPort, arrived func(delivery)) *stream {
	t.Helper()
	s := &stream{t: t, user: user}
	took := func(m ua.Incoming, branch string) {
		arrived(delivery{body: string(m.Body), callID: m.CallID, branch: branch, at: time.Now()})
	}
	config := ua.Config{
		Address: message.Address{User: user, Host: domain}, Password: password, TCP: servers[0].String(), Ping: streamPing,
		Handle: func(m ua.Incoming) bool { took(m, m.CallID); return true },
		Again:  func(m ua.Incoming) { took(m, fmt.Sprint(m.CallID, " again ", s.again.Add(1))) },
	}
	for _, server := range servers[1:] {
		config.Others = append(config.Others, ua.Server{TCP: server.String()})
	}
	agent, err := ua.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	s.agent = agent
	t.Cleanup(func() { // the test's context has ended
		s.keeping.Wait()
		agent.Close()
	})
	return s
}

// register registers the device and keeps it registered until the test ends.
func (s *stream) register(ctx context.Context) error {
	granted, err := s.agent.Register(ctx, time.Hour)
	if err != nil {
		return err
	}
	s.keeping.Go(func() {
		s.agent.KeepRegistered(s.t.Context(), granted, func(error) {}) // while no node is active
	})
	return nil
}
