package ladder

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func benchPacket() *plugin.Packet {
	return &plugin.Packet{
		Time: time.Now(), Transport: "sip", Protocol: "sip", Network: "udp",
		Local: netip.MustParseAddrPort("192.0.2.1:5060"), Remote: netip.MustParseAddrPort("198.51.100.7:5060"),
		Call: "3848276298220188511@atlanta.example.com", Title: [2]string{"MESSAGE", "sip:1002@sip.example.com"},
		Data: bytes.Repeat([]byte("x"), 700),
	}
}

func benchStep() *plugin.Step {
	now := time.Now()
	return &plugin.Step{
		Name: plugin.StepAttempted, Began: now, Ended: now, Call: "3848276298220188511@atlanta.example.com", Transport: "sip",
		Peer: "sip:1002@198.51.100.7:5060", Attempt: 1,
		Message: &message.Message{
			ID: message.ID{1}, PublicID: message.NewPublicID(),
			From: message.Address{User: "1001", Host: "sip.example.com"}, Recipient: message.Address{User: "1002", Host: "sip.example.com"},
		},
	}
}

var benchConfig = Config{Packets: 32_768, Steps: 32_768}

func BenchmarkPacket(b *testing.B) {
	l, p := New(benchConfig), benchPacket()
	b.ReportAllocs()
	for b.Loop() {
		l.Packet(p)
	}
}

func BenchmarkStep(b *testing.B) {
	l, s := New(benchConfig), benchStep()
	b.ReportAllocs()
	for b.Loop() {
		l.Step(s)
	}
}

func BenchmarkPacketParallel(b *testing.B) {
	l := New(benchConfig)
	b.RunParallel(func(pb *testing.PB) {
		for p := benchPacket(); pb.Next(); {
			l.Packet(p)
		}
	})
}
