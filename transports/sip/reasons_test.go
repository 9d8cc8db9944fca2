package sip

import (
	"slices"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// TestEveryReasonHasAStatus, once, and 503 only those of the node.
func TestEveryReasonHasAStatus(t *testing.T) {
	rows := map[message.Reason]int{}
	for _, row := range finals {
		rows[row.reason]++
		for _, status := range []int{row.final, row.temporary} {
			if (status == 503) != row.reason.OfNode() || status == 408 || wire.Phrase(status) == "" || status < 400 {
				t.Errorf("%s is %d", row.reason, status)
			}
		}
	}
	for _, reason := range message.Reasons {
		if rows[reason] != 1 {
			t.Errorf("%s has %d rows", reason, rows[reason])
		}
	}
	if len(rows) != len(message.Reasons) {
		t.Errorf("%d rows for %d reasons", len(rows), len(message.Reasons))
	}
}

// TestAccept: 415 says what would pass, also that nothing would.
func TestAccept(t *testing.T) {
	for _, c := range []struct {
		accept []string
		want   []wire.Header
	}{
		{nil, nil},
		{[]string{}, []wire.Header{{Name: "Accept"}}},
		{[]string{"text/plain", "message/cpim"}, []wire.Header{{Name: "Accept", Value: "text/plain, message/cpim"}}},
	} {
		f := &message.Failure{Reason: message.UnsupportedType, Accept: c.accept}
		if got := finalFor(f); got.Status != 415 || !slices.Equal(got.Headers, c.want) {
			t.Errorf("%q: %+v", c.accept, got)
		}
	}
}
