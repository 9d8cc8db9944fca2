package trunk

import (
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// BenchmarkSend is the whole way to a server on this machine and back, both ends
// counted.
func BenchmarkSend(b *testing.B) {
	for _, network := range []string{"udp", "tcp"} {
		b.Run(network, func(b *testing.B) {
			s := serve(b, ok, network)
			config := local()
			config.NextHop = "sip:" + s.address(0) + ";transport=" + network
			trunk, err := New(b.Context(), plugin.Env{}, config)
			if err != nil {
				b.Fatal(err)
			}
			start(b, trunk)
			m := testMessage()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := trunk.Send(b.Context(), m, delivery()); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
