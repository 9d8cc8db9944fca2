package pipeline

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
)

func TestNoticesAreFew(t *testing.T) {
	n := notices{pending: map[notice]*pendingNotice{}}
	said := 0
	for i := range 1000 {
		if times := n.due(notice{refusedMessages, message.PolicyFailed}, began.Add(time.Duration(i)*100*time.Millisecond)); times > 0 {
			said++
			if want := []int{1, 600}; times != want[said-1] {
				t.Errorf("line %d says %d times", said, times)
			}
		}
	}
	if said != 2 {
		t.Errorf("%d lines in 100 s, want 2", said)
	}
	if n.due(notice{refusedMessages, message.Internal}, began) != 1 {
		t.Error("another reason isn't said")
	}
}
