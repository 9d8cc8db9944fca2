package wire

import (
	"net/netip"
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

func TestSharer(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "::1": "::/64",
	} {
		if got := Sharer(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}
