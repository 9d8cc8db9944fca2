package wire

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func mustAddress(t *testing.T, user string) message.Address {
	t.Helper()
	a := message.Address{User: user}
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	return a
}

// mustBeAddress keeps what a door would let in.
func mustBeAddress(user string) message.Address {
	a := message.Address{User: user}
	if a.Validate() != nil {
		return message.Address{}
	}
	return a
}
