package client

import (
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
)

// BenchmarkSend hands messages to an SMSC over one bind with a window of 50: both
// sides, and the network, are in the figure.
func BenchmarkSend(b *testing.B) {
	center, err := smsc.Listen(b.Context(), smsc.Config{Listen: "127.0.0.1:0", Receipts: -1})
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { center.Serve(b.Context()) })
	config := Defaults
	config.Connect, config.Window = []string{center.Addr().String()}, 50
	config.Dialect.Receipts = "none"
	client, err := New(b.Context(), plugin.Env{Instance: "vendor"}, config)
	if err != nil {
		b.Fatal(err)
	}
	serving.Go(func() { _ = client.Serve(b.Context(), newGate()) })
	b.Cleanup(serving.Wait)
	for client.binds.count(true) == 0 {
		time.Sleep(time.Millisecond)
	}
	m, route := sms("a message of some length, as people write them"), routeTo()
	route.Until = time.Now().Add(time.Hour)
	b.ReportAllocs()
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Send(b.Context(), m, route); err != nil {
				b.Error(err)
			}
		}
	})
}
