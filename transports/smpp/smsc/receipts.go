package smsc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

const (
	maxDue       = 100_000 // receipts that may wait for their time
	maxReporting = 200     // of those that are sent at once
	reportWithin = 10 * time.Second
	reportAgain  = time.Second // after an ESME has said to try again
	maxReports   = 30
)

// due is a receipt that is to be sent.
type due struct {
	at          time.Time
	submitted   time.Time
	systemID    string
	messageID   string
	source      wire.Address // of the message
	destination wire.Address
}

// reportLater sees to the receipt of a message, if there is to be one (SMPP 3.4
// §5.2.17).
func (p *peer) reportLater(submit Submit, messageID string) {
	s := p.smsc
	asked := submit.Short.RegisteredDelivery & 0x03
	good := s.config.Outcome == translate.Delivered
	if s.config.Receipts < 0 || asked == 0 || asked == 2 && good || asked == 3 && !good {
		return
	}
	now := time.Now()
	d := &due{
		at: now.Add(s.config.Receipts), submitted: now, systemID: p.systemID, messageID: messageID,
		source: submit.Short.Source, destination: submit.Short.Destination,
	}
	select {
	case s.receipts <- d:
	default:
		s.config.Log.Warn("receipt not sent", "reason", "too many wait")
	}
}

// reportAll sends receipts when they are due. All wait equally long, so they are
// due in their order.
func (s *SMSC) reportAll(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	places := make(chan struct{}, maxReporting)
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.receipts:
			if !sleep(ctx, time.Until(d.at)) {
				return
			}
			places <- struct{}{}
			sending.Go(func() {
				s.report(ctx, d)
				<-places
			})
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// report sends a receipt, and again while the ESME says that it can't take it now.
func (s *SMSC) report(ctx context.Context, d *due) {
	var err error
	for range maxReports {
		if err = s.deliver(ctx, d.systemID, []translate.Outgoing{s.receipt(d)}); err == nil || isRefusal(err) {
			break
		}
		if !sleep(ctx, reportAgain) {
			return
		}
	}
	if err != nil {
		s.config.Log.Warn("receipt not taken", "reason", err)
	}
}

// esmReceipt is the bit of esm_class that marks a delivery receipt (SMPP 3.4
// §5.2.12).
const esmReceipt = 0x04

// states are message_state as the text of a receipt has it (SMPP 3.4 appendix B).
var states = map[translate.State]string{
	translate.Delivered: "DELIVRD", translate.Expired: "EXPIRED", translate.Deleted: "DELETED",
	translate.Undeliverable: "UNDELIV", translate.Accepted: "ACCEPTD", translate.Unknown: "UNKNOWN", translate.Rejected: "REJECTD",
}

// receipt is the deliver_sm that says what became of a message, in text and in
// TLVs.
func (s *SMSC) receipt(d *due) translate.Outgoing {
	const minute = "0601021504"
	delivered := 0
	if s.config.Outcome == translate.Delivered {
		delivered = 1
	}
	text := fmt.Appendf(nil, "id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:000 text:",
		d.messageID, delivered, d.submitted.Format(minute), d.at.Format(minute), states[s.config.Outcome])
	return translate.Outgoing{
		Short: wire.Short{Of: pdu.DeliverSMID, Source: d.destination, Destination: d.source, ESMClass: esmReceipt, Text: text},
		TLVs: wire.TLVs{
			wire.Text(pdutlv.TagReceiptedMessageID, d.messageID),
			wire.Uint8(pdutlv.TagMessageStateOption, uint8(s.config.Outcome)),
		},
	}
}

// refusal is an ESME's answer to what it doesn't want.
type refusal struct{ status pdu.Status }

func (r *refusal) Error() string { return "the ESME refuses it: " + wire.StatusName(r.status) }

// isRefusal tells whether there is no use in trying again.
func isRefusal(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return false
	}
	switch r.status {
	case wire.RxTAppn, wire.RThrottled, wire.RMsgQFul, wire.RSysErr:
		return false
	}
	return true
}

// deliver sends PDUs to an ESME, one after the other on one session.
func (s *SMSC) deliver(ctx context.Context, systemID string, parts []translate.Outgoing) error {
	session, err := s.receiver(systemID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	for i := range parts {
		response, err := session.Do(ctx, &parts[i].Short, parts[i].TLVs)
		if err != nil {
			return fmt.Errorf("deliver_sm: %w", err)
		}
		if response.Status != wire.ROK {
			return &refusal{response.Status}
		}
	}
	return nil
}

// Originate brings a message as if a phone had sent it, and waits for the ESME's
// answer: nil if it has taken it. Numbers are as message.Address has them.
func (s *SMSC) Originate(ctx context.Context, from, to, text string) error {
	m := &message.Message{
		From: message.Address{User: from}, Recipient: message.Address{User: to},
		ContentType: "text/plain;charset=utf-8", Body: []byte(text), Received: time.Now(),
	}
	parts, err := s.dialect.Outgoing(m, plugin.Route{Reference: message.NewPublicID()}, pdu.DeliverSMID)
	if err != nil {
		return err
	}
	return s.deliver(ctx, "", parts)
}
