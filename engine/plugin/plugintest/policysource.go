package plugintest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// sourceLimit is how long a source may take in a test for what takes
// milliseconds by design: to notice a change, to end with its context.
const sourceLimit = 5 * time.Second

// PolicySourceHarness opens the source under test.
type PolicySourceHarness struct {
	// Open opens the source. It holds content 0 until Write says otherwise.
	Open func(T) plugin.PolicySource
	// Elsewhere opens one as it is on another node, whose content is another one.
	Elsewhere func(T) plugin.PolicySource
	// Write changes what the source that Open opens holds. The contents 0 and 1
	// are good and decide differently; equal numbers are equal contents. Nil: it
	// is part of the program and never changes.
	Write func(t T, content int)
	// Break makes of it what can't be used. Nil, where Write is.
	Break func(T)
	Good  func() plugin.Question // a new one at each call, always the same; it has a verdict
}

// PolicySource runs the contract suite of sources of policies. harness is called
// once for each case.
func PolicySource(t *testing.T, harness func(T) PolicySourceHarness) {
	t.Helper()
	run(t, policySourceCases, harness)
}

var policySourceCases = []Case[PolicySourceHarness]{
	{"what is read is within the limits, and the same until it changes", readIsRepeatable},
	{"equal contents have equal revisions, and others other ones", revisionFollowsContent},
	{"a plan names the revision of its bundle", planNamesRevision},
	{"what was read here decides the same there", bundleTravels},
	{"what can't be used is an error", brokenIsAnError},
	{"a bundle that isn't one is an error", damagedIsAnError},
	{"compiling ends soon after its context", compilingEnds},
	{"a watch ends with its context", watchEnds},
	{"a watch notices what changes during it", watchNotices},
	{"a watch notices what changed before it", watchNoticesLate},
	{"policies outlive their source", policiesOutliveSource},
}

// source opens what the case works with, and closes it.
func (h PolicySourceHarness) source(t T, open func(T) plugin.PolicySource) plugin.PolicySource {
	t.Helper()
	s := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

func readSource(t T, s plugin.PolicySource) plugin.Bundle {
	t.Helper()
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatalf("reading what is good: %v", err)
	}
	return b
}

func compileSource(t T, s plugin.PolicySource, b plugin.Bundle) plugin.Policy {
	t.Helper()
	p, _, err := s.Compile(t.Context(), b)
	if err != nil {
		t.Fatalf("compiling what is good: %v", err)
	}
	if p == nil {
		t.Fatalf("compiling what is good: there is neither a policy nor an error")
	}
	return p
}

var revisionForm = regexp.MustCompile(`^[0-9A-Za-z._-]+$`)

func readIsRepeatable(t T, h PolicySourceHarness) {
	s := h.source(t, h.Open)
	first := readSource(t, s)
	if !revisionForm.MatchString(first.Revision) || len(first.Revision) > plugin.MaxRevision {
		t.Errorf("the revision is %q, expected 1 to %d octets of [0-9A-Za-z._-]", first.Revision, plugin.MaxRevision)
	}
	if len(first.Content) > plugin.MaxBundle {
		t.Errorf("the content has %d octets, at most %d", len(first.Content), plugin.MaxBundle)
	}
	for range 4 {
		if again := readSource(t, s); again.Revision != first.Revision || !bytes.Equal(again.Content, first.Content) {
			t.Fatalf("nothing changed, and revision %q became %q", first.Revision, again.Revision)
		}
	}
	if s.MaxAge() < 0 {
		t.Errorf("MaxAge is %v, expected no time below zero", s.MaxAge())
	}
}

func revisionFollowsContent(t T, h PolicySourceHarness) {
	if h.Write == nil {
		return
	}
	s := h.source(t, h.Open)
	zero := readSource(t, s)
	h.Write(t, 1)
	one := readSource(t, s)
	if one.Revision == zero.Revision {
		t.Errorf("two contents have the revision %q", one.Revision)
	}
	if bytes.Equal(one.Content, zero.Content) {
		t.Errorf("what is read doesn't follow a change")
	}
	h.Write(t, 0)
	if back := readSource(t, s); back.Revision != zero.Revision {
		t.Errorf("one content had the revision %q and then %q", zero.Revision, back.Revision)
	}
}

func planNamesRevision(t T, h PolicySourceHarness) {
	s := h.source(t, h.Open)
	b := readSource(t, s)
	if plan := verdict(t, compileSource(t, s, b), h.Good()); plan.Revision != b.Revision {
		t.Errorf("the plan names revision %q, expected %q", plan.Revision, b.Revision)
	}
}

func bundleTravels(t T, h PolicySourceHarness) {
	here, there := h.source(t, h.Open), h.source(t, h.Elsewhere)
	b := readSource(t, here)
	kept := plugin.Bundle{Revision: b.Revision, Content: bytes.Clone(b.Content)}
	want := verdict(t, compileSource(t, here, b), h.Good())
	readSource(t, there)
	got := verdict(t, compileSource(t, there, kept), h.Good())
	got.Revision = want.Revision // that has a case of its own
	if !reflect.DeepEqual(got, want) {
		t.Errorf("one bundle decided\n\t%+v\nhere and\n\t%+v\nthere", want, got)
	}
}

func brokenIsAnError(t T, h PolicySourceHarness) {
	if h.Break == nil {
		return
	}
	s := h.source(t, h.Open)
	h.Break(t)
	b, err := s.Read(t.Context())
	if err != nil {
		return
	}
	if p, _, err := s.Compile(t.Context(), b); err == nil {
		t.Errorf("what can't be used became the policy %v", p)
	}
}

func damagedIsAnError(t T, h PolicySourceHarness) {
	s := h.source(t, h.Open)
	b := readSource(t, s)
	damaged := []plugin.Bundle{{Revision: "foreign", Content: []byte("\x00no bundle\xff")}, {Revision: "foreign"}}
	if len(b.Content) > 0 {
		damaged = append(damaged, plugin.Bundle{Revision: b.Revision, Content: b.Content[:len(b.Content)/2]}, plugin.Bundle{Revision: b.Revision})
	}
	for _, d := range damaged {
		if p, _, err := s.Compile(t.Context(), d); err == nil {
			t.Errorf("%d octets that are no bundle became the policy %v", len(d.Content), p)
		}
	}
}

func compilingEnds(t T, h PolicySourceHarness) {
	s := h.source(t, h.Open)
	b := readSource(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = s.Compile(ctx, b) // it may have been done already
	}()
	select {
	case <-ended:
	case <-time.After(sourceLimit):
		t.Fatalf("%v after the end of its context it still compiles", sourceLimit)
	}
}

// watch begins to watch. What Watch returns comes through the channel.
func watch(ctx context.Context, s plugin.PolicySource) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx) }()
	return ended
}

func watchEnds(t T, h PolicySourceHarness) {
	s := h.source(t, h.Open)
	readSource(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := watch(ctx, s)
	cancel()
	select {
	case <-ended:
	case <-time.After(sourceLimit):
		t.Fatalf("%v after the end of its context it still watches", sourceLimit)
	}
}

func watchNotices(t T, h PolicySourceHarness) {
	h.notices(t, func(s plugin.PolicySource) <-chan error {
		ended := watch(t.Context(), s)
		select {
		case err := <-ended: // it may be careful, and then is asked again
			if err != nil {
				t.Fatalf("it can't watch: %v", err)
			}
			readSource(t, s)
			ended = watch(t.Context(), s)
		case <-time.After(200 * time.Millisecond): // most likely it watches by now
		}
		h.Write(t, 1)
		return ended
	})
}

func watchNoticesLate(t T, h PolicySourceHarness) {
	h.notices(t, func(s plugin.PolicySource) <-chan error {
		h.Write(t, 1)
		return watch(t.Context(), s)
	})
}

var errUnnoticed = errors.New("nothing within " + sourceLimit.String())

// notices checks that a change is noticed, and read then.
func (h PolicySourceHarness) notices(t T, change func(plugin.PolicySource) <-chan error) {
	if h.Write == nil {
		return
	}
	s := h.source(t, h.Open)
	before := readSource(t, s)
	err := errUnnoticed
	select {
	case err = <-change(s):
	case <-time.After(sourceLimit):
	}
	if err != nil {
		t.Fatalf("a change wasn't noticed: %v", err)
	}
	if after := readSource(t, s); after.Revision == before.Revision {
		t.Errorf("a change was noticed, and what is read is revision %q as before", after.Revision)
	}
}

func policiesOutliveSource(t T, h PolicySourceHarness) {
	s := h.Open(t)
	b := readSource(t, s)
	p := compileSource(t, s, b)
	want := verdict(t, p, h.Good())
	if err := s.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if got := verdict(t, p, h.Good()); !reflect.DeepEqual(got, want) {
		t.Errorf("before its source was closed it decided\n\t%+v\nand then\n\t%+v", want, got)
	}
}
