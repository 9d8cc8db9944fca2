package rego

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// open loads the policies built in.
func open(t testing.TB) plugin.Policy {
	t.Helper()
	p, err := New(t.Context(), plugin.Env{Log: slog.New(slog.DiscardHandler)}, Config{Deadline: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func typical() plugin.Question {
	return plugin.Question{
		Message: plugin.QuestionMessage{ID: "01890a5d-ac96-774b-bcce-b302099a8057", Type: "text/plain", Class: "text", Size: 42},
		Sender: plugin.QuestionSender{
			Account: "1001", Address: "1001@sip.example.com", User: "1001", Domain: "sip.example.com",
			Attributes: map[string]string{"tariff": "default"},
		},
		Recipient: plugin.QuestionRecipient{
			Address: "1002@sip.example.com", User: "1002", Domain: "sip.example.com",
			Local: true, Registered: true, Devices: 1,
		},
		Transport: "sip", Protocol: "sip", Peer: "192.0.2.1:5060",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC),
	}
}

// BenchmarkDecide is the policy's share of the budget: 27 µs CPU a message.
func BenchmarkDecide(b *testing.B) {
	p := open(b)
	ctx := context.WithoutCancel(b.Context())
	q := typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
}
