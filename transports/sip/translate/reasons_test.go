package translate

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestEveryRefusalHasAReason(t *testing.T) {
	known := map[message.Reason]bool{}
	for _, reason := range message.Reasons {
		known[reason] = true
	}
	seen := map[int]bool{}
	for _, row := range answers {
		if seen[row.status] || !known[row.reason] || row.reason.OfNode() {
			t.Errorf("%d: %s", row.status, row.reason)
		}
		seen[row.status] = true
	}
	for status := 300; status < 700; status++ {
		if f := Refusal(&wire.Response{Status: status}); f.Reason == message.Malformed || f.Reason == message.Unauthenticated || f.Reason == message.Internal {
			t.Errorf("%d blames the sender or us: %s", status, f.Reason)
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, row := range answers {
		if f := Refusal(&wire.Response{Status: row.status}); f.Reason != row.reason || f.Temporary != row.temporary {
			t.Errorf("%d: %+v", row.status, f)
		}
	}
	for status, want := range map[int]message.Reason{499: message.Undelivered, 599: message.Undelivered, 699: message.Busy} {
		if f := Refusal(&wire.Response{Status: status}); f.Reason != want || f.Temporary != (status > 499) {
			t.Errorf("%d: %+v", status, f)
		}
	}
}

func TestUnanswered(t *testing.T) {
	for _, test := range []struct {
		err       error
		reason    message.Reason
		temporary bool
	}{
		{wire.ErrUnsafe, message.Unbuildable, false}, {wire.ErrTooLarge, message.TooLarge, false}, {wire.ErrNeedsStream, message.TooLarge, false},
		{wire.ErrTimeout, message.NoAnswer, true}, {context.Canceled, message.NoAnswer, true}, {wire.ErrNoFlow, message.Unavailable, true},
		{errors.New("no route"), message.Unavailable, true},
	} {
		if f := Unanswered(fmt.Errorf("x: %w", test.err)); f.Reason != test.reason || f.Temporary != test.temporary {
			t.Errorf("%v: %+v", test.err, f)
		}
	}
}
