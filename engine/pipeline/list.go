package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/spool"
)

// Bounds of a list.
const (
	DefaultLimit = 100
	MaxLimit     = 1000

	listSpool   = 64  // messages of the spool at once, with their bodies
	listHistory = 512 // records of the history at once

	// maxLooked bounds what one call looks at, whether it passes or not: in
	// records of the history. A message of the spool counts as spoolWeight.
	maxLooked   = 10_000
	spoolWeight = 10
)

// View is a message as the operator sees it: all that is known, without the text.
type View = spool.Summary

// Filter says which messages to list. Zero values let everything pass.
type Filter struct {
	State     spool.StateName
	From      message.Address // Address.UnmarshalText reads it
	To        message.Address // also the one that the message came with
	Service   string
	Transport string     // through which it came in
	After     message.ID // only those with a greater id
	Limit     int        // how many at most: DefaultLimit if it is 0, never over MaxLimit
}

func (f *Filter) passes(v *View) bool {
	return (f.State == "" || f.State == v.State) && (f.From.IsZero() || f.From == v.From) && (f.To.IsZero() || f.To == v.To || f.To == v.OriginalTo) &&
		(f.Service == "" || f.Service == v.Service) && (f.Transport == "" || f.Transport == v.Transport)
}

func (f *Filter) limit() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}

// Page is a part of a list, in the order of the ids.
type Page struct {
	Messages []View `json:"messages"`
	// Next is where to go on: the next Filter.After. Empty: there is no more.
	// A page may have fewer messages than asked for, or none, and a Next.
	Next string `json:"next"`
}

// List returns the messages that a filter lets pass: those of the spool, and
// those that have ended and are not yet forgotten. One call looks at a bounded
// number of them, so that it holds nothing up. Errors are temporary.
func (p *Pipeline) List(ctx context.Context, f Filter) (Page, error) {
	page := Page{Messages: []View{}}
	lister := lister{p: p, filter: &f, after: f.After, all: !f.inSpool()}
	for lister.looked < maxLooked {
		views, err := lister.next(ctx)
		if err != nil {
			return Page{}, unreadable(err)
		}
		for i := range views {
			if !f.passes(&views[i]) {
				continue
			}
			page.Messages = append(page.Messages, views[i])
			if len(page.Messages) == f.limit() {
				page.Next = views[i].ID.String()
				return page, nil
			}
		}
		if lister.ended {
			return page, nil
		}
	}
	page.Next = lister.after.String()
	return page, nil
}

func (f *Filter) inSpool() bool {
	return !slices.Contains([]spool.StateName{spool.StateDelivered, spool.StateFailed, spool.StateDiscarded}, f.State)
}

func (f *Filter) inHistory() bool {
	return !slices.Contains([]spool.StateName{spool.StateScheduled, spool.StateWaiting, spool.StateSending, spool.StateQuarantined}, f.State)
}

// lister goes through the spool and the history side by side.
type lister struct {
	p      *Pipeline
	filter *Filter
	after  message.ID // all up to this one were returned
	looked int        // see maxLooked

	aside   []message.ID // in quarantine and not yet read, if that is all there is to list; nil: not asked for yet
	waiting []View       // of the spool, read ahead
	all     bool         // whether the spool has no more than these
	ended   bool
}

// next returns the next messages. Each stretch of the spool is read before the
// same stretch of the history: what ends meanwhile is in both, and its record
// counts; the other way round it would be in neither.
func (l *lister) next(ctx context.Context) ([]View, error) {
	if err := l.readAhead(ctx); err != nil {
		return nil, err
	}
	var to message.ID // what the history is read up to
	if !l.all {
		to = following(l.waiting[len(l.waiting)-1].ID)
	}
	var ended []View
	if l.filter.inHistory() {
		var err error
		if ended, err = l.p.Spool.History(ctx, following(l.after), to, listHistory); err != nil {
			return nil, err
		}
	}
	n := len(l.waiting)
	if len(ended) == listHistory { // there may be more: only those of the spool that come before
		last := ended[len(ended)-1].ID
		n = countUpTo(l.waiting, last)
		l.after = last
	} else {
		l.ended = l.all
		if n > 0 {
			l.after = l.waiting[n-1].ID
		}
	}
	l.looked += len(ended)
	views := merge(ended, l.waiting[:n])
	l.waiting = l.waiting[n:]
	return views, nil
}

// readAhead reads the spool's next stretch when the last one is used up.
func (l *lister) readAhead(ctx context.Context) (err error) {
	if l.all || len(l.waiting) > 0 {
		return nil
	}
	if l.filter.State == spool.StateQuarantined {
		l.waiting, err = l.readAside(ctx)
	} else {
		l.waiting, err = l.p.readSpool(ctx, l.after)
	}
	l.all = len(l.waiting) < listSpool
	l.looked += spoolWeight * len(l.waiting)
	return err
}

// readSpool reads what is ours, and what waits for its other parts: that first, so
// that what is joined meanwhile is in both, and not in neither.
func (p *Pipeline) readSpool(ctx context.Context, after message.ID) ([]View, error) {
	incomplete := p.sets.Page(following(after), listSpool)
	entries, err := p.Spool.Page(ctx, following(after), listSpool)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(entries))
	for i, e := range entries {
		if views[i], err = p.view(ctx, e); err != nil {
			return nil, err
		}
	}
	all := merge(views, incomplete)
	return all[:min(len(all), listSpool)], nil
}

// readAside finds what is in quarantine among a million that wait.
func (l *lister) readAside(ctx context.Context) (views []View, err error) {
	if l.aside == nil {
		l.aside = l.p.lanes.aside(l.after)
	}
	n := min(len(l.aside), listSpool)
	for _, id := range l.aside[:n] {
		v, err := l.p.Show(ctx, id)
		if f, ok := errors.AsType[*message.Failure](err); ok && f.Reason == message.UnknownRecipient {
			v, err = View{ID: id}, nil // it has just ended: nothing passes it
		}
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	l.aside = l.aside[n:]
	return views, nil
}

// aside returns the ids in quarantine that are greater, in their order.
func (ls *lanes) aside(after message.ID) []message.ID {
	ls.mu.Lock()
	ids := slices.Collect(maps.Keys(ls.quarantined))
	ls.mu.Unlock()
	ids = slices.DeleteFunc(ids, func(id message.ID) bool { return compareIDs(id, after) <= 0 })
	slices.SortFunc(ids, compareIDs)
	return ids
}

func compareIDs(a, b message.ID) int { return slices.Compare(a[:], b[:]) }

// countUpTo returns how many have an id that isn't greater.
func countUpTo(views []View, id message.ID) int {
	n := 0
	for n < len(views) && compareIDs(views[n].ID, id) <= 0 {
		n++
	}
	return n
}

// merge returns all in their order; of two with one id that which is later on its way.
func merge(later, earlier []View) []View {
	if len(earlier) == 0 {
		return later
	}
	all := slices.Concat(later, earlier)
	slices.SortStableFunc(all, func(a, b View) int { return compareIDs(a.ID, b.ID) })
	return slices.CompactFunc(all, func(a, b View) bool { return a.ID == b.ID })
}

// following is the least id that is greater.
func following(id message.ID) message.ID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			break
		}
	}
	return id
}
