package pipeline

import (
	"context"
	"errors"
	"slices"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// maxCancelled bounds how many messages one call ends.
const maxCancelled = 10_000

// submittedAs are the states that a message's submitter tells apart; else it waits.
var submittedAs = map[spool.StateName]plugin.SubmittedState{
	spool.StateScheduled: plugin.SubmittedScheduled, spool.StateHandedOver: plugin.SubmittedHanded, spool.StateDelivered: plugin.SubmittedDelivered,
	spool.StateFailed: plugin.SubmittedFailed, spool.StateDiscarded: plugin.SubmittedDiscarded,
}

// Find tells an account what has become of a message. See plugin.Gate.
func (p *Pipeline) Find(ctx context.Context, account, publicID string) (plugin.Submitted, error) {
	v, err := p.submitted(ctx, account, publicID)
	if err != nil {
		return plugin.Submitted{}, err
	}
	s := plugin.Submitted{From: v.From, Recipient: v.To, Received: v.Received, State: submittedAs[v.State], Ended: v.Ended}
	if !v.OriginalTo.IsZero() {
		s.Recipient = v.OriginalTo
	}
	unanswered := func(d spool.DeliverySummary) bool { return d.State == spool.StateUnknown }
	switch {
	case s.State == plugin.SubmittedFailed:
		s.Reason = v.Reason
	case s.State == "" && slices.ContainsFunc(v.Deliveries, unanswered):
		s.State = plugin.SubmittedUnknown
	case s.State == "":
		s.State = plugin.SubmittedWaiting
	}
	return s, nil
}

// submitted returns the message that an account has handed in and knows by a name.
// A name leads to its own message; if that isn't there any more, or was cancelled,
// the table may know of another that has taken its place, or has a short name.
func (p *Pipeline) submitted(ctx context.Context, account, name string) (v View, err error) {
	if v, waits := p.sets.Named(account, name); waits && account != "" { // for its other parts
		return v, nil
	}
	id, leads := p.names.ID(name)
	for {
		if leads {
			v, err = p.Show(ctx, id)
			if err != nil && !isUnknown(err) {
				return v, err
			}
			if err == nil && v.Reason != message.Cancelled {
				break
			}
		}
		next, err := p.Spool.Named(ctx, account, name)
		if err != nil {
			return v, unreadable(err)
		}
		if next.IsZero() || next == id {
			break
		}
		id, leads = next, true // another one may take its place meanwhile
	}
	if v.ID.IsZero() || account == "" || v.Account != account || v.PublicID != name {
		return View{}, message.Fail(message.UnknownMessage, "account %s has no message of that name", account)
	}
	return v, nil
}

func isUnknown(err error) bool {
	f, ok := errors.AsType[*message.Failure](err)
	return ok && f.Reason == message.UnknownRecipient
}

// toSubmitter says in the words of plugin.Gate why a message can't be changed.
func toSubmitter(err error) error {
	switch {
	case errors.Is(err, ErrConflict):
		return &message.Failure{Reason: message.Conflict, Err: err}
	case isUnknown(err):
		return &message.Failure{Reason: message.UnknownMessage, Err: err}
	}
	return err
}

// CancelOf ends what waits of an account's messages, at most maxCancelled. See
// plugin.Gate.
func (p *Pipeline) CancelOf(ctx context.Context, account string, which plugin.Which) (int, error) {
	if which.PublicID == "" {
		return p.cancelBetween(ctx, account, which)
	}
	v, err := p.submitted(ctx, account, which.PublicID)
	if err != nil {
		return 0, err
	}
	if err := p.Cancel(ctx, v.ID); err != nil {
		return 0, toSubmitter(err)
	}
	return 1, nil
}

// cancelBetween ends what waits from a sender to a recipient. That one of them is
// being sent keeps it from none but that.
func (p *Pipeline) cancelBetween(ctx context.Context, account string, which plugin.Which) (int, error) {
	var conflict error
	incomplete := p.sets.Between(account, which.From, which.Recipient)
	incomplete = incomplete[:min(len(incomplete), maxCancelled)]
	ended := make(chan error, maxCancelled)
	done := func(err error) { ended <- err }
	n := 0
	for _, id := range incomplete {
		if set := p.sets.Take(id); set != nil {
			p.endIncomplete(set, message.Cancelled, done)
			n++
		} else {
			conflict = ErrConflict // it is whole by now, or being decided upon
		}
	}
	for _, id := range p.lanes.between(which.From, which.Recipient, maxCancelled-len(incomplete)) {
		e, err := p.Spool.Load(ctx, id)
		if err != nil {
			return n, unreadable(err)
		}
		if e == nil || account == "" || e.Submitter != account || e.Message.From != which.From || e.Message.Recipient != which.Recipient {
			continue
		}
		if err := p.endResting(e, message.Cancelled, done); err != nil {
			conflict = err
			continue
		}
		n++
	}
	switch {
	case n > 0:
		return n, onDisk(ctx, ended, n)
	case conflict != nil:
		return 0, toSubmitter(conflict)
	}
	return 0, message.Fail(message.UnknownMessage, "account %s has none that waits from %s to %s", account, which.From, which.Recipient)
}
