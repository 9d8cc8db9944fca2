package trunk

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/imgate/imgate/transports/sip/wire"
)

// TestAllAtOnce: what has waited for a next hop goes at once, over one
// connection, and that holds.
func TestAllAtOnce(t *testing.T) {
	s := serve(t, ok, "tcp")
	config := local()
	config.NextHop = "sip:" + s.address(0) + ";transport=tcp"
	trunk, _ := openTrunk(t, config)
	m := testMessage()
	m.Body = []byte(strings.Repeat("x", 10_000))
	var sending sync.WaitGroup
	for range 1500 {
		sending.Go(func() {
			if _, err := trunk.Send(t.Context(), m, delivery()); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	if n := s.endpoint.Counts().Accepted; n != 1 {
		t.Errorf("%d connections", n)
	}
	if n := len(trunk.windows.byHop); n != 0 {
		t.Errorf("%d windows are left", n)
	}
}

func TestWindow(t *testing.T) {
	ws, hop := newWindows(), wire.Target{Network: "tcp"}
	leave, err := ws.enter(t.Context(), hop, 10*windowOctets)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ws.enter(ctx, hop, 1); err == nil {
		t.Error("there was room beyond the window")
	}
	for _, other := range []wire.Target{{Network: "udp"}, {Network: "tls"}} {
		if out, err := ws.enter(t.Context(), other, 1); err != nil {
			t.Error(other.Network, err)
		} else {
			out()
		}
	}
	leave()
	if len(ws.byHop) != 0 {
		t.Errorf("%d windows are left", len(ws.byHop))
	}
}
