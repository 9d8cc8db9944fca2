package translate

import (
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/text"
)

// TestMessageIDIsTheSameInGSM: a peer that reads a receipt in GSM 03.38 finds the
// name that the response had.
func TestMessageIDIsTheSameInGSM(t *testing.T) {
	for range 100 {
		publicID := message.NewPublicID() + "_-"
		id := MessageID(publicID)
		if back := PublicID(id); back != publicID {
			t.Fatalf("%s becomes %s, and that %s", publicID, id, back)
		}
		read, err := text.Decode(AppendReceipt(nil, Report{MessageID: id, State: Delivered}), 0, false, text.GSM7)
		if err != nil || !strings.HasPrefix(read.Text, "id:"+id+" ") {
			t.Fatalf("%s is read as %q, %v", id, read.Text, err)
		}
	}
}
