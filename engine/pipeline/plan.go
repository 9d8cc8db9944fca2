package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// addressee is whose an address is.
type addressee struct {
	plugin.Account
	known bool // one of ours
}

// plan asks the policy what is to happen to a message, or why it is refused.
func (p *Pipeline) plan(j job, supply *supply) (*spool.Entry, plugin.Answer, error) {
	m := j.Message
	answer := plugin.Answer{ID: m.ID, PublicID: m.PublicID}
	to, err := p.addressee(m.Recipient)
	if err != nil {
		return nil, answer, err
	}
	plan, err := p.ask(j.Arrival, to, supply)
	if err != nil {
		return nil, answer, err
	}
	e := &spool.Entry{Message: m, Account: to.ID, Submitter: j.Account.ID, Key: j.Key, Expiry: p.expiry(m, plan), Plan: plan}
	if j.assembled != nil {
		j.assembled.planned = e
	}
	switch plan.Processing {
	case plugin.Reject:
		return nil, answer, message.Fail(plan.Reason, "service %s rejects it", plan.Service)
	case plugin.Discard:
		return e, answer, nil
	case plugin.Deliver:
	default:
		return nil, answer, message.FailForNow(message.PolicyFailed, "service %s wants it to be processed as %q", plan.Service, plan.Processing)
	}
	if e.Recipient() != m.Recipient {
		if to, err = p.addressee(e.Recipient()); err != nil {
			return nil, answer, err
		}
		e.Account = to.ID
	}
	e.Record = record(j.Account, e)
	if err := p.findWays(e, to); err != nil {
		return nil, answer, err
	}
	answer.Within = within(e)
	return e, answer, nil
}

// within is how long the sender waits for the first outcome.
func within(e *spool.Entry) time.Duration {
	switch {
	case e.Plan.Answer == plugin.AnswerDelivered:
		return min(e.Plan.Within, plugin.MaxWithin)
	case e.Transient() && e.Message.Class != message.Composing:
		return plugin.DefaultWithin // now or not at all: its sender is told which
	}
	return 0
}

// addressee finds the account that owns an address; that there is none is no
// error. It is one that no more messages may wait, for this recipient or at all.
func (p *Pipeline) addressee(a message.Address) (addressee, error) {
	account, err := p.Accounts.Lookup(p.authorizing.Context(time.Now()), a)
	to := addressee{Account: account, known: err == nil}
	if err != nil {
		if f, ok := errors.AsType[*message.Failure](err); !ok || f.Reason != message.UnknownRecipient {
			return addressee{}, err
		}
		to = addressee{}
	}
	if f := p.full(recipientName(to.ID, a)); f != nil {
		return addressee{}, f
	}
	return to, nil
}

// full tells whether no more messages may wait, for this recipient or at all.
func (p *Pipeline) full(recipient string) *message.Failure {
	limits := p.bounds.Load()
	inAll, forThem := p.lanes.counted(recipient)
	if inAll += int(p.reports.held.Load()); inAll >= limits.Messages {
		return message.FailForNow(message.Overloaded, "%d messages wait already", inAll)
	}
	if forThem >= limits.PerRecipient {
		return message.FailForNow(message.LimitReached, "%d messages wait for %s already", forThem, recipient)
	}
	return nil
}

// ask asks the policy.
func (p *Pipeline) ask(a plugin.Arrival, to addressee, supply *supply) (plugin.Plan, error) {
	q := p.question(a, to, supply)
	began := time.Now()
	plan, err := p.Policy.Decide(p.authorizing.Context(began), q, supply)
	ended := time.Now()
	p.meter.policy.Observe(ended.Sub(began))
	if err != nil {
		return plugin.Plan{}, err
	}
	if err := sound(&plan); err != nil {
		return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "the plan of service %s: %w", plan.Service, err)
	}
	p.tell(plugin.Step{Name: plugin.StepDecided, Message: a.Message, Began: began, Ended: ended, Service: plan.Service})
	return plan, nil
}

// sound checks what would do harm later.
func sound(plan *plugin.Plan) error {
	for _, a := range [...]struct {
		key string
		message.Address
	}{
		{"rewrite.sender", plan.Rewrite.Sender}, {"rewrite.recipient", plan.Rewrite.Recipient}, {"fallback.sender", plan.Fallback.Sender},
	} {
		if err := a.Validate(); err != nil && !a.IsZero() {
			return fmt.Errorf("%s: %w", a.key, err)
		}
	}
	switch {
	case len(plan.Retry.Backoff) == 0:
		return errors.New("retry.backoff: expected a pause")
	case len(plan.Limits) > plugin.MaxLimits:
		return fmt.Errorf("%d limits, at most %d", len(plan.Limits), plugin.MaxLimits)
	}
	for _, l := range plan.Limits {
		if l.Per < plugin.MinWindow || l.Per > plugin.MaxWindow {
			return fmt.Errorf("limit %s is per %s, expected %s to %s", l.Name, l.Per, plugin.MinWindow, plugin.MaxWindow)
		}
	}
	return nil
}

// expiry is the end of a message's life, counted from receipt by our clock. The
// plan's time begins when the sender wants it delivered. How long a notification
// lives is for the operator alone to say.
func (p *Pipeline) expiry(m *message.Message, plan plugin.Plan) time.Time {
	life := min(plan.Store, plugin.MaxStore) + max(0, m.NotBefore.Sub(m.Received))
	if m.Expires != nil {
		life = min(life, *m.Expires)
	}
	switch m.Class {
	case message.Composing:
		life = 0 // what a crash leaves on disk has no life
	case message.Notification:
		life = p.bounds.Load().notifications
	}
	return m.Received.Add(max(0, life))
}

// findWays keeps those of a plan's transports over which the message may go, as
// instances, or says why there are none.
func (p *Pipeline) findWays(e *spool.Entry, to addressee) (err error) {
	mediaType := content.MediaType(e.Message.ContentType)
	e.Plan.Fallback.Transports, _, _ = p.carriers(e.Plan.Fallback.Transports, &e.Plan, mediaType)
	if !to.known {
		e.Plan.Fallback.Transports = slices.DeleteFunc(e.Plan.Fallback.Transports, func(instance string) bool { return !p.leadsOutside(instance) })
	}
	if e.Plan.ExternalRouting {
		e.Plan.Transports = nil // charging says where it goes
		return routable(e, mediaType)
	}
	if e.Plan.Transports, err = p.passable(&e.Plan, mediaType); err != nil {
		return err
	}
	if to.known || slices.ContainsFunc(e.Plan.Transports, p.leadsOutside) || (&deliveries{}).mayFallBack(e, message.UnknownRecipient) {
		return nil
	}
	return message.Fail(message.UnknownRecipient, "nobody has the address")
}

// routable refuses what wants routes and can't get them: they come with the
// reservation, and a notice never has one.
func routable(e *spool.Entry, mediaType string) error {
	switch {
	case e.Record != nil:
		return nil
	case e.Message.Class != message.Text:
		return message.Fail(message.UnsupportedType, "%s costs nothing, and so isn't routed by charging", mediaType)
	}
	return message.FailForNow(message.PolicyFailed, "service %s wants external routing of what isn't charged", e.Plan.Service)
}

// leadsOutside tells whether an instance reaches others than those who register.
func (p *Pipeline) leadsOutside(instance string) bool { return !p.Doors[instance].Registrar }

// passable returns those of the plan's transports over which the type may go,
// as instances.
func (p *Pipeline) passable(plan *plugin.Plan, mediaType string) ([]string, error) {
	instances, accept, found := p.carriers(plan.Transports, plan, mediaType)
	switch {
	case len(instances) > 0:
		return instances, nil
	case found:
		return nil, unsupported(mediaType, fmt.Sprint(plan.Transports), accept)
	}
	for _, name := range plan.Transports {
		if types, passes := carries(Door{Protocol: name}, plan, mediaType); !passes {
			return nil, unsupported(mediaType, name, types) // it couldn't go there if that were here
		}
	}
	return nil, message.FailForNow(message.PolicyFailed, "service %s wants transports %v, and there are none of these", plan.Service, plan.Transports)
}

func unsupported(mediaType, over string, accept []string) *message.Failure {
	f := message.Fail(message.UnsupportedType, "%s isn't allowed over %s", mediaType, over)
	f.Accept = accept
	return f
}

// carriers returns those of the instances and plugins that are named over which
// the type may go, as instances; found: some are there. accept is what the first
// of them takes over which it may not go.
func (p *Pipeline) carriers(names []string, plan *plugin.Plan, mediaType string) (instances, accept []string, found bool) {
	for _, name := range names {
		for _, instance := range p.instances {
			door := p.Doors[instance]
			if instance != name && door.Plugin != name {
				continue
			}
			found = true
			types, passes := carries(door, plan, mediaType)
			switch {
			case !passes && accept == nil:
				accept = types
			case passes && !slices.Contains(instances, instance):
				instances = append(instances, instance)
			}
		}
	}
	return instances, accept, found
}

// carries tells whether a type may go over a door, and which may.
func carries(door Door, plan *plugin.Plan, mediaType string) (types []string, passes bool) {
	types, limited := plan.MIME[door.Protocol]
	return types, !limited || slices.Contains(types, mediaType)
}
