package translate

import (
	"errors"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// TestEveryReasonHasAStatus, which peers read as what it is: final or not, and
// throttled only for what less would help.
func TestEveryReasonHasAStatus(t *testing.T) {
	for _, reason := range message.Reasons {
		row, ok := statuses[reason]
		if !ok {
			t.Errorf("%s has no status", reason)
			continue
		}
		final, temporary := Errors{}.FailureOf(row.final), Errors{}.FailureOf(row.temporary)
		if final == nil || temporary == nil || !temporary.Temporary || final.Temporary != reason.OfNode() {
			t.Errorf("%s: %s is %v, %s is %v", reason, wire.StatusName(row.final), final, wire.StatusName(row.temporary), temporary)
		}
		throttles := row.temporary == wire.RThrottled
		if throttles != (reason == message.Overloaded) {
			t.Errorf("%s is %s for now", reason, wire.StatusName(row.temporary))
		}
	}
	if len(statuses) != len(message.Reasons) {
		t.Errorf("%d rows for %d reasons", len(statuses), len(message.Reasons))
	}
	if got := StatusOf(&message.Failure{Reason: "new"}); got != wire.RSysErr {
		t.Error(wire.StatusName(got))
	}
}

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		f    *message.Failure
		want pdu.Status
	}{
		{message.Fail(message.UnknownRecipient, "x"), wire.RInvDstAdr},
		{message.FailForNow(message.UnknownRecipient, "x"), wire.RMsgQFul},
		{message.Fail(message.Forbidden, "x"), wire.RInvSrcAdr},
		{message.FailForNow(message.LimitReached, "x"), wire.RMsgQFul},
		{message.FailForNow(message.Overloaded, "x"), wire.RThrottled},
		{message.Fail(message.Standby, "x"), wire.RSysErr},
		{message.Fail(message.UnsupportedType, "x"), wire.RInvDCS},
	} {
		if got := StatusOf(c.f); got != c.want {
			t.Errorf("%v is %s", c.f, wire.StatusName(got))
		}
	}
}

func TestStatusIn(t *testing.T) {
	conflict, later := message.Fail(message.Conflict, "x"), message.FailForNow(message.StorageDown, "x")
	for of, want := range map[pdu.ID]pdu.Status{
		pdu.QuerySMID: wire.RQueryFail, pdu.CancelSMID: wire.RCancelFail, pdu.ReplaceSMID: wire.RReplaceFail,
	} {
		if got := StatusIn(of, conflict); got != want {
			t.Errorf("%s: conflict is %s", wire.Name(of), wire.StatusName(got))
		}
		if got := StatusIn(of, later); got != want {
			t.Errorf("%s: what may pass is %s", wire.Name(of), wire.StatusName(got))
		}
		if got := StatusIn(of, message.Fail(message.UnknownMessage, "x")); got != wire.RInvMsgID {
			t.Errorf("%s: no such message is %s", wire.Name(of), wire.StatusName(got))
		}
	}
	if got := StatusIn(pdu.SubmitSMID, later); got != wire.RSysErr {
		t.Error(wire.StatusName(got))
	}
}

// TestEveryStatusHasAReason, and none that blames the sender's grammar or us.
func TestEveryStatusHasAReason(t *testing.T) {
	temporary := map[pdu.Status]bool{0x08: true, 0x14: true, 0x45: true, 0x58: true, 0x64: true, 0xfe: true, 0xff: true}
	for s := pdu.Status(1); s < 0x500; s++ {
		f := Errors{}.FailureOf(s)
		if f.Temporary != temporary[s] {
			t.Errorf("%s: temporary is %t", wire.StatusName(s), f.Temporary)
		}
		switch f.Reason {
		case message.Malformed, message.Unauthenticated, message.Internal, message.Unavailable, message.Draining, message.Standby, message.StorageDown:
			t.Errorf("%s: %s", wire.StatusName(s), f.Reason)
		case message.Overloaded:
			if s != wire.RThrottled && s != wire.RMsgQFul {
				t.Errorf("%s: %s", wire.StatusName(s), f.Reason)
			}
		}
	}
	if (Errors{}).FailureOf(wire.ROK) != nil {
		t.Error("ESME_ROK is a failure")
	}
}

func TestErrorsOfAVendor(t *testing.T) {
	e := Errors{Temporary: []Code{0x400, 0x0b}, Permanent: []Code{0x08, 0x58}}
	for s, want := range map[pdu.Status]message.Failure{
		0x400: {Reason: message.Undelivered, Temporary: true},
		0x401: {Reason: message.Undelivered},
		0x0b:  {Reason: message.UnknownRecipient, Temporary: true},
		0x08:  {Reason: message.Undelivered},
		0x58:  {Reason: message.Undelivered},
		0x14:  {Reason: message.Overloaded, Temporary: true},
	} {
		if got := e.FailureOf(s); got.Reason != want.Reason || got.Temporary != want.Temporary {
			t.Errorf("%s: %v, temporary is %t", wire.StatusName(s), got, got.Temporary)
		}
	}
}

func TestErrorsValidate(t *testing.T) {
	if err := (Errors{Temporary: []Code{1}, Permanent: []Code{2}}).Validate("errors."); err != nil {
		t.Error(err)
	}
	err := Errors{Temporary: []Code{1}, Permanent: []Code{2, 1}}.Validate("errors.")
	expectKeys(t, err, "errors.permanent[1]")
}

func expectKeys(t *testing.T, err error, keys ...string) {
	t.Helper()
	found := plugin.Mistakes(err)
	if len(found) != len(keys) {
		t.Fatalf("%v, want %q", err, keys)
	}
	for i, key := range keys {
		if e, ok := errors.AsType[*plugin.InvalidKey](found[i]); !ok || e.Key != key {
			t.Errorf("%v, want %s", found[i], key)
		}
	}
}

func TestCode(t *testing.T) {
	for text, want := range map[string]Code{
		"0x58": 0x58, "88": 0x58, "ESME_RTHROTTLED": 0x58, "esme_rthrottled": 0x58, "0x00000400": 0x400, "ESME_RX_T_APPN": 0x64, "ESME_RINVDCS": 0x104,
	} {
		var c Code
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("%s is %#x, %v", text, uint32(c), err)
		}
		written, _ := c.MarshalText()
		var again Code
		if err := again.UnmarshalText(written); err != nil || again != c {
			t.Errorf("%s becomes %s", text, written)
		}
	}
	for _, text := range []string{"", "0", "ESME_ROK", "ESME_X", "-1", "0x100000000"} {
		var c Code
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %#x", text, uint32(c))
		}
	}
}
