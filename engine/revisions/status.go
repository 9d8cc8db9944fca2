package revisions

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Status is how the policies of a node are.
type Status struct {
	Revision string    `json:"revision"` // in force; on a standby, on the active node; empty: none ever was
	Services []string  `json:"services"`
	Since    time.Time `json:"since,omitzero"` // when it was put in force
	Node     string    `json:"node"`           // which put it in force
	Source   string    `json:"source"`         // of this node, in words
	Held     string    `json:"held"`           // the newest good revision of it; empty: none yet
	// Trying is since when a change of the source is tried, of which nothing else here
	// knows yet; zero: none is.
	Trying time.Time `json:"trying_since,omitzero"`
	// Current: what the source holds is in force.
	Current      bool      `json:"current"`
	Trouble      string    `json:"trouble"`                // why not, and whatever else is wrong
	TroubleSince time.Time `json:"trouble_since,omitzero"` //
	StandingIn   bool      `json:"standing_in"`            // the stored revision decides, since the source couldn't be used when this node became the active one
	// Expires is until when a start or a take-over would succeed with the stored
	// revision, while the source can't be used.
	Expires   time.Time  `json:"expires,omitzero"`
	Tests     int        `json:"tests"`
	Coverage  float64    `json:"coverage"`
	Warnings  []string   `json:"warnings"`
	Revisions []Revision `json:"revisions"` // in force now or before, the newest first; at most MaxListed
}

// Revision is one that is in force, or was.
type Revision struct {
	Revision string    `json:"revision"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // zero: it is in force
	Node     string    `json:"node"`
}

// MaxListed is how many revisions a Status names at most.
const MaxListed = 100

// The kinds of trouble.
const (
	holding   = iota // what the source holds can't be used
	watching         // the source can't be watched
	storing          // what is good can't be stored
	following        // what another node put in force can't be used here
	kinds
)

// said is what the log says of each when it begins, and when it is over.
var said = [kinds][2]string{
	holding:   {"the policies can't be taken: the last good ones stay in force", "the policies are good again"},
	watching:  {"the policies can't be watched: they are read again and again instead", "the policies are watched again"},
	storing:   {"new policies aren't in force yet: they can't be stored; it is tried again", "the new policies are stored"},
	following: {"the policies in force can't be used on this node, should it take over", "the policies in force can be used on this node"},
}

// maxTrouble bounds what is told of one trouble, in octets.
const maxTrouble = 64 << 10

// trouble is something that is wrong.
type trouble struct {
	err   error
	since time.Time
}

// note notes what is wrong, or that nothing is any more, of a source or of the
// whole; it is in the log once.
func (b *Book) note(s *Source, kind int, err error) {
	if err != nil && len(err.Error()) > maxTrouble {
		err = errors.New(strings.ToValidUTF8(err.Error()[:maxTrouble], "") + " …")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := &b.state.troubles[kind]
	if s != nil && s != b.state.source {
		return
	}
	switch {
	case err == nil && now.err != nil:
		*now = trouble{}
		b.c.Log.Info(said[kind][1])
	case err != nil && now.err == nil:
		*now = trouble{err, time.Now().UTC()}
		b.c.Log.Error(said[kind][0], "error", err)
	case err != nil && now.err.Error() != err.Error():
		now.err = err
		b.c.Log.Error(said[kind][0], "error", err)
	}
}

// isCurrent tells whether what the source holds is in force.
func (b *Book) isCurrent(st state) bool {
	switch {
	case st.own == nil || st.troubles[holding].err != nil || st.pending != nil:
		return false
	case st.lead != nil:
		return b.decides.Load().is(st.own.revision())
	}
	return st.record.active.Revision == "" || st.own.is(st.record.active.Revision)
}

// Held is what the source of this node holds.
func (b *Book) Held() Held {
	st := b.get()
	return Held{Revision: st.own.revision(), Broken: st.troubles[holding].err != nil}
}

// InForce is the revision in force, as far as this node knows.
func (b *Book) InForce() string { return b.get().record.active.Revision }

// Unable is why this node couldn't take over: nil, or what is wrong with its
// source and with what is stored.
func (b *Book) Unable(now time.Time) error {
	st := b.get()
	known := b.situation(st, st.record, now)
	if known.rule() == neither {
		return errors.Join(st.troubles[holding].err, known.tooOld())
	}
	return nil
}

// Status tells how the policies are.
func (b *Book) Status() Status {
	st := b.get()
	a := st.record.active
	s := Status{
		Revision: a.Revision, Since: a.Since, Node: a.Node, Source: st.source.words, Held: st.own.revision(),
		Current: b.isCurrent(st), StandingIn: st.lead != nil && (st.ruling == standIn || st.ruling == standOver),
		Services: []string{}, Warnings: []string{}, Revisions: st.record.list(),
	}
	s.Trouble, s.TroubleSince = b.trouble(st, s.Current)
	if since := st.source.trying.Load(); since != nil {
		s.Trying = *since
	}
	if maxAge := st.source.source.MaxAge(); st.troubles[holding].err != nil && maxAge > 0 && a.Revision != "" {
		s.Expires = a.Confirmed.Add(maxAge)
	}
	if e := b.deciding(st); e != nil {
		s.Services, s.Warnings = append(s.Services, e.report.Services...), append(s.Warnings, e.report.Warnings...)
		s.Tests, s.Coverage = e.report.Tests, e.report.Coverage
	}
	return s
}

// deciding is what decides, or would on this node; nil: that isn't known.
func (b *Book) deciding(st state) *edition {
	if st.lead != nil {
		return b.decides.Load()
	}
	for _, e := range []*edition{st.own, st.ahead} {
		if e.is(st.record.active.Revision) {
			return e
		}
	}
	return st.own
}

// trouble is all that is wrong, in words, and since when.
func (b *Book) trouble(st state, current bool) (text string, since time.Time) {
	var texts []string
	for _, t := range st.troubles {
		if t.err == nil {
			continue
		}
		texts = append(texts, t.err.Error())
		if since.IsZero() || t.since.Before(since) {
			since = t.since
		}
	}
	if len(texts) == 0 && !current {
		return b.difference(st)
	}
	return strings.Join(texts, "\n"), since
}

// difference says what becomes of a good revision that isn't in force, and since
// when it isn't.
func (b *Book) difference(st state) (text string, since time.Time) {
	a := st.record.active
	if since = st.own.found; a.Since.After(since) {
		since = a.Since
	}
	text = fmt.Sprintf("revision %s is in force, which node %s put in force; the source of this node holds %s", a.Revision, a.Node, st.own.revision())
	switch {
	case st.lead != nil:
		return text + ", which is older: edit it, or reload this node to put it in force", since
	case b.situation(st, st.record, time.Now()).rule() == edited:
		return text + ", which was edited since: it is put in force when this node takes over", since
	}
	return text + ", which is older, and isn't put in force when this node takes over: edit it", since
}

// list returns what is in force and was, the newest first.
func (r *record) list() []Revision {
	list := []Revision{}
	for _, revision := range r.newestFirst() {
		f := r.facts[revision]
		if len(list) == MaxListed {
			break
		}
		if f.Since.IsZero() {
			continue // it never was
		}
		list = append(list, Revision{Revision: revision, Since: f.Since, Until: f.Until, Node: f.Node})
	}
	return list
}

// meter counts what happens to the policies.
type meter struct{ taken, unchanged, refused *plugin.Counter }

func newMeter(metrics *plugin.Metrics, b *Book) *meter {
	count := func(outcome string) *plugin.Counter {
		return metrics.Counter("policy_reloads_total", "How often the policies were read anew, and what came of it.", plugin.Label{Name: "outcome", Value: outcome})
	}
	metrics.Gauge("policy_current", "Whether the policies that the source of this node holds are in force.", func() float64 {
		if b.isCurrent(b.get()) {
			return 1
		}
		return 0
	})
	metrics.Gauge("policy_in_force_timestamp_seconds", "When the policies in force were put in force, in seconds since 1970; 0: none are.", func() float64 {
		since := b.get().record.active.Since
		if since.IsZero() {
			return 0
		}
		return float64(since.UnixMilli()) / 1000
	})
	metrics.Gauge("policy_services", "How many services the policies in force have.", func() float64 {
		if e := b.deciding(b.get()); e != nil {
			return float64(len(e.report.Services))
		}
		return 0
	})
	return &meter{taken: count("taken"), unchanged: count("unchanged"), refused: count("refused")}
}

// of is what counts a good revision: known ones are unchanged.
func (m *meter) of(known bool) *plugin.Counter {
	if known {
		return m.unchanged
	}
	return m.taken
}
