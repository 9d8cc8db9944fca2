package translate

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// statuses says how a failure is answered. What may pass, is said with a status that
// peers are known to repeat: ESME_RMSGQFUL for what concerns one message alone, so
// that one broken rule doesn't make an ESME leave for another node, and
// ESME_RTHROTTLED or ESME_RSYSERR for what concerns this node.
var statuses = map[message.Reason]struct{ final, temporary pdu.Status }{
	message.Malformed:         {wire.RxPAppn, wire.RMsgQFul},
	message.Unauthenticated:   {wire.RInvPaswd, wire.RMsgQFul},
	message.Forbidden:         {wire.RInvSrcAdr, wire.RMsgQFul},
	message.UnknownRecipient:  {wire.RInvDstAdr, wire.RMsgQFul},
	message.UnsupportedType:   {wire.RInvDCS, wire.RMsgQFul},
	message.TooLarge:          {wire.RInvMsgLen, wire.RMsgQFul},
	message.TooManyHops:       {wire.RxPAppn, wire.RMsgQFul},
	message.InsufficientFunds: {wire.RxRAppn, wire.RMsgQFul},
	message.Rejected:          {wire.RxRAppn, wire.RMsgQFul},
	message.Blocked:           {wire.RxPAppn, wire.RMsgQFul}, // looks as if the recipient couldn't be reached
	message.Unavailable:       {wire.RxPAppn, wire.RMsgQFul},
	message.NoAnswer:          {wire.RxPAppn, wire.RMsgQFul},
	message.Busy:              {wire.RxPAppn, wire.RMsgQFul},
	message.Declined:          {wire.RxRAppn, wire.RMsgQFul},
	message.Gone:              {wire.RInvDstAdr, wire.RMsgQFul},
	message.Expired:           {wire.RInvExpiry, wire.RMsgQFul},
	message.Cancelled:         {wire.RxPAppn, wire.RMsgQFul},
	message.Undelivered:       {wire.RxPAppn, wire.RMsgQFul},
	message.Unbuildable:       {wire.RxPAppn, wire.RMsgQFul},
	message.Incomplete:        {wire.RxPAppn, wire.RMsgQFul},
	message.UnknownMessage:    {wire.RInvMsgID, wire.RMsgQFul},
	message.Conflict:          {wire.RxPAppn, wire.RMsgQFul}, // see StatusIn
	message.PolicyFailed:      {wire.RxPAppn, wire.RMsgQFul},
	message.ChargingFailed:    {wire.RxPAppn, wire.RMsgQFul},
	message.LimitReached:      {wire.RxRAppn, wire.RMsgQFul},
	message.Internal:          {wire.RxPAppn, wire.RMsgQFul},
	message.Overloaded:        {wire.RThrottled, wire.RThrottled},
	message.Draining:          {wire.RSysErr, wire.RSysErr},
	message.Standby:           {wire.RSysErr, wire.RSysErr},
	message.StorageDown:       {wire.RSysErr, wire.RSysErr},
}

// StatusOf is the answer to a submission that failed.
func StatusOf(f *message.Failure) pdu.Status {
	row, ok := statuses[f.Reason]
	switch {
	case !ok:
		return wire.RSysErr
	case f.Temporary:
		return row.temporary
	}
	return row.final
}

// StatusIn is the answer to a request that failed: query_sm, cancel_sm and
// replace_sm have a status of their own for a message that can't be found out
// about or changed now.
func StatusIn(of pdu.ID, f *message.Failure) pdu.Status {
	if f.Reason != message.Conflict && !f.Temporary {
		return StatusOf(f)
	}
	switch of {
	case pdu.QuerySMID:
		return wire.RQueryFail
	case pdu.CancelSMID:
		return wire.RCancelFail
	case pdu.ReplaceSMID:
		return wire.RReplaceFail
	}
	return StatusOf(f)
}

// Errors says what a peer's statuses mean where it has its own way. The zero
// value takes them as SMPP does.
type Errors struct {
	Temporary []Code `yaml:"temporary" doc:"statuses of the peer that are worth another attempt, besides the usual ones: numbers such as 0x58, or names such as ESME_RTHROTTLED"`
	Permanent []Code `yaml:"permanent" doc:"statuses that aren't worth one, whatever they usually mean"`
}

// Code is a status in the configuration.
type Code pdu.Status

// maxNamed is greater than all statuses that have names.
const maxNamed = 0x200

// UnmarshalText reads 0x58, 88 or ESME_RTHROTTLED.
func (c *Code) UnmarshalText(text []byte) error {
	word := strings.ToUpper(string(text))
	for s := wire.ROK + 1; s < maxNamed; s++ {
		if wire.StatusName(s) == word {
			*c = Code(s)
			return nil
		}
	}
	n, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil || n == 0 {
		return errors.New("expected a status such as 0x58 or ESME_RTHROTTLED")
	}
	*c = Code(n)
	return nil
}

// MarshalText writes the name, or the number where there is none.
func (c Code) MarshalText() ([]byte, error) { return []byte(wire.StatusName(pdu.Status(c))), nil }

// Validate names every key that is wrong, in *plugin.InvalidKey joined; prefix
// stands before each key: "errors.".
func (e Errors) Validate(prefix string) error {
	p := problems{prefix: prefix}
	for i, code := range e.Permanent {
		key := "permanent[" + strconv.Itoa(i) + "]"
		p.expect(!slices.Contains(e.Temporary, code), key, "a status that isn't in temporary")
	}
	return errors.Join(p.found...)
}

// failures says what a peer's refusal means, where it is not just
// message.Undelivered for good.
var failures = map[pdu.Status]struct {
	reason    message.Reason
	temporary bool
}{
	wire.RInvMsgLen:       {message.TooLarge, false},
	wire.RSysErr:          {message.Undelivered, true},
	wire.RInvSrcAdr:       {message.Forbidden, false},
	wire.RInvDstAdr:       {message.UnknownRecipient, false},
	wire.RMsgQFul:         {message.Overloaded, true},
	wire.RSubmitFail:      {message.Undelivered, true},
	wire.RInvSrcTON:       {message.Forbidden, false},
	wire.RInvSrcNPI:       {message.Forbidden, false},
	wire.RInvDstTON:       {message.UnknownRecipient, false},
	wire.RInvDstNPI:       {message.UnknownRecipient, false},
	wire.RThrottled:       {message.Overloaded, true},
	wire.RInvExpiry:       {message.Expired, false},
	wire.RxTAppn:          {message.Undelivered, true},
	wire.RxRAppn:          {message.Declined, false},
	wire.RDeliveryFailure: {message.Undelivered, true},
	wire.RUnknownErr:      {message.Undelivered, true},
	wire.RSerTypUnauth:    {message.Forbidden, false},
	wire.RProhibited:      {message.Forbidden, false},
	wire.RSerTypDenied:    {message.Forbidden, false},
	wire.RInvDCS:          {message.UnsupportedType, false},
}

// FailureOf reads the status of a response; nil: ESME_ROK. RThrottled and
// RMsgQFul are message.Overloaded. A status that the configuration calls
// permanent is never that.
func (e Errors) FailureOf(s pdu.Status) *message.Failure {
	if s == wire.ROK {
		return nil
	}
	row, ok := failures[s]
	if !ok {
		row.reason = message.Undelivered
	}
	switch {
	case slices.Contains(e.Permanent, Code(s)):
		row.temporary = false
		if row.reason == message.Overloaded {
			row.reason = message.Undelivered
		}
	case slices.Contains(e.Temporary, Code(s)):
		row.temporary = true
	}
	f := message.Fail(row.reason, "the peer answered %s", wire.StatusName(s))
	f.Temporary = row.temporary
	return f
}
