package pipeline

import (
	"slices"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// maxRoutes is how many routes charging may name; the rest is left out.
const maxRoutes = 32

// record begins the charging record of a message; nil: it costs nothing, as is
// always so of typing notices and notifications.
func record(sender plugin.Account, e *spool.Entry) *plugin.Record {
	c := e.Plan.Charging
	if c.Mode == plugin.ChargeNone || e.Message.Class != message.Text {
		return nil
	}
	payer := c.Account
	if payer == "" {
		payer = sender.ID
	}
	return &plugin.Record{
		Key: e.Message.ID, Payer: payer, Destination: c.Destination, Units: units(len(e.Message.Body), c),
		From: e.Message.From, Recipient: e.Recipient(), Service: e.Plan.Service, Received: e.Message.Received,
	}
}

// units is what the plan says, else the product's billing unit size: undefined
// means that a message is one whatever its length.
func units(size int, c plugin.PlanCharging) int {
	switch {
	case c.Units > 0:
		return c.Units
	case c.UnitSize > 0:
		return max(1, (size+c.UnitSize-1)/c.UnitSize)
	}
	return 1
}

// authorize makes the reservation and takes the routes, if the plan asks for them.
func (p *Pipeline) authorize(e *spool.Entry) ([]plugin.Change, error) {
	if e.Record == nil {
		return nil, nil
	}
	began := time.Now()
	a, err := p.Charging.Authorize(p.authorizing.Context(began), plugin.Request{
		Key: e.Record.Key, Payer: e.Record.Payer, Destination: e.Record.Destination, Units: e.Record.Units,
		From: e.Message.From, Recipient: e.Record.Recipient, HoldUntil: e.Expiry.Add(receiptWait), Routing: e.Plan.ExternalRouting,
	})
	ended := time.Now()
	p.meter.charging.Observe(ended.Sub(began))
	if err != nil {
		return nil, err
	}
	p.tell(plugin.Step{Name: plugin.StepAuthorized, Message: e.Message, Began: began, Ended: ended})
	e.Record.Reserved = a.Reserved
	if e.Plan.ExternalRouting {
		if e.Routes, err = p.usable(a.Routes, e); err != nil {
			p.release(e.Record)
			return nil, err
		}
	}
	return p.Tables.Own(a.Changes), nil
}

// usable returns the routes that a message can take: over transports that are
// there and don't need a binding, and that may carry its type.
func (p *Pipeline) usable(routes []plugin.Route, e *spool.Entry) (usable []plugin.Route, err error) {
	if len(routes) == 0 {
		return nil, message.Fail(message.UnknownRecipient, "charging has no route")
	}
	mediaType := content.MediaType(e.Message.ContentType)
	var refusal *message.Failure
	for _, route := range routes {
		door, exists := p.Doors[route.Transport]
		if !exists || door.Registrar {
			continue
		}
		if types, passes := carries(door, &e.Plan, mediaType); !passes {
			if refusal == nil {
				refusal = unsupported(mediaType, route.Transport, types)
			}
			continue
		}
		usable = append(usable, plugin.Route{Transport: route.Transport, Address: route.Address})
	}
	switch {
	case len(usable) > 0:
		return slices.Clip(usable[:min(len(usable), maxRoutes)]), nil
	case refusal != nil:
		return nil, refusal
	}
	return nil, message.FailForNow(message.ChargingFailed, "none of the %d routes that charging names is over a transport that is there and needs no registration", len(routes))
}

// payNow returns what goes to the outbox with the message where the plan says
// that it is paid when it is accepted. Then nothing is settled when it ends.
func (p *Pipeline) payNow(e *spool.Entry, now time.Time) *plugin.Record {
	if e.Record == nil || e.Plan.Charging.When != plugin.OnAcceptance {
		return nil
	}
	paid := *e.Record
	paid.Charged, paid.Settled = true, now
	e.Record = nil
	p.settler.expect(paid.Key)
	return &paid
}

// release gives a reservation back for a message that wasn't accepted.
func (p *Pipeline) release(r *plugin.Record) {
	if r == nil {
		return
	}
	back := *r
	back.Settled = time.Now()
	p.settler.release(back)
}
