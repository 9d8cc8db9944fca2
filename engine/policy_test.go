package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// papers are policies that a test edits. What they say is their revision, and
// the service that decides; what begins with "bad" can't be used.
type papers struct {
	mu      sync.Mutex
	text    string
	age     time.Duration
	changed chan struct{}
	known   []string // Env.Transports
	open    int
}

func newPapers(text string) *papers {
	return &papers{text: text, age: time.Hour, changed: make(chan struct{}, 1)}
}

func (p *papers) edit(text string) {
	p.mu.Lock()
	p.text = text
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// place is how the configuration names papers.
type place struct {
	Dir    string `yaml:"dir"`
	Bundle struct {
		File string `yaml:"file"`
	} `yaml:"bundle"`
}

// Validate is plugin.Config.
func (place) Validate() error { return nil }

// by lets papers decide.
func by(p *papers) func(*engine.Config) {
	open := func(_ context.Context, env plugin.Env, _ place) (plugin.PolicySource, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.known = env.Transports
		p.open++
		return reader{p}, nil
	}
	return func(c *engine.Config) {
		c.Policy = engine.Instance{Name: "policy", Plugin: plugin.DefinePolicy("papers", "", place{}, open), Settings: &place{Dir: "./papers"}}
	}
}

// reader is one that reads papers: several nodes may.
type reader struct{ *papers }

func (r reader) Read(context.Context) (plugin.Bundle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return plugin.Bundle{Revision: strings.ReplaceAll(r.text, " ", "-"), Content: []byte(r.text)}, nil
}

func (r reader) Compile(_ context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	if strings.HasPrefix(string(b.Content), "bad") {
		return nil, plugin.PolicyReport{}, fmt.Errorf("a.rego:1: %s", b.Content)
	}
	return rule(b.Content), plugin.PolicyReport{Services: []string{string(b.Content)}, Tests: 1, Coverage: 100}, nil
}

func (r reader) Watch(ctx context.Context) error {
	select {
	case <-r.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r reader) MaxAge() time.Duration { return r.age }

func (r reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	return nil
}

// rule is a policy with a service of its own name.
type rule string

// Decide is plugin.Policy.
func (r rule) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	plan := plugin.DefaultPlan()
	plan.Service, plan.Revision, plan.Transports, plan.Answer = string(r), string(r), []string{"trunk"}, plugin.AnswerAccepted
	return plan, nil
}

// policyStatus is what a test reads of GET /v1/policy.
type policyStatus struct {
	Revision, Node, Source, Held, Trouble string
	Current                               bool
	StandingIn                            bool `json:"standing_in"`
	Services                              []string
	Revisions                             []struct{ Revision string }
}

func (n *node) policy() (s policyStatus) {
	n.t.Helper()
	status, text := n.send("GET", "/v1/policy", "")
	if err := json.Unmarshal([]byte(text), &s); err != nil || status != 200 {
		n.t.Fatalf("%d %s", status, text)
	}
	return s
}

// awaits waits until a revision is in force, and what the node's own papers say
// is, or isn't.
func (n *node) awaits(revision string, current bool) {
	n.t.Helper()
	n.eventually(revision+" is in force", func() bool {
		s := n.policy()
		return s.Revision == revision && s.Current == current
	})
}

// decides sends a message and checks which revision decided on it.
func (n *node) decides(revision string) {
	n.t.Helper()
	text := fmt.Sprint("decided by ", revision, time.Now().UnixNano())
	n.works(text)
	_, list := n.send("GET", "/v1/messages?limit=1000&service="+revision, "")
	var page struct{ Messages []struct{ Revision string } }
	if err := json.Unmarshal([]byte(list), &page); err != nil || len(page.Messages) == 0 || page.Messages[0].Revision != revision {
		n.t.Errorf("%s didn't decide: %s", revision, list)
	}
}

func TestPoliciesAreEdited(t *testing.T) {
	p := newPapers("one")
	n := start(t, newWorld(t), engine.Options{Metrics: plugin.NewMetrics()}, by(p))
	n.decides("one")
	if s := n.policy(); s.Source != "dir ./papers" || s.Node != "test" || s.Held != "one" || !slices.Equal(s.Services, []string{"one"}) {
		t.Errorf("%+v", s)
	}
	if _, text := n.send("GET", "/readyz", ""); text != `{"status":"ready"}` {
		t.Error(text)
	}
	if status, _ := n.call("GET", "/v1/policy?x=1"); status != 400 {
		t.Error(status)
	}
	if !slices.Equal(p.known, []string{"in", "radio", "trunk"}) {
		t.Errorf("it knows the transports %v", p.known)
	}
	p.edit("two")
	n.awaits("two", true)
	n.decides("two")
	p.edit("bad three")
	n.awaits("two", false)
	n.decides("two")
	if status, text := n.send("GET", "/readyz", ""); status != 200 || text != `{"status":"ready","remarks":["policy: a.rego:1: bad three"]}` {
		t.Errorf("%d %s", status, text)
	}
	// Nothing else can be reloaded meanwhile: whole or not at all.
	if _, err := n.Reload(t.Context(), n.config(by(p), trunk(n.world, settings{Version: 2}))); err == nil || err.Error() != "c.yaml(policy): policy: a.rego:1: bad three" {
		t.Error(err)
	}
	p.edit("four")
	n.awaits("four", true)
	n.decides("four")
	if s := n.policy(); len(s.Revisions) != 3 || s.Trouble != "" {
		t.Errorf("%+v", s)
	}
	// What a reload reads is in force when it returns.
	p.mu.Lock()
	p.text = "five"
	p.mu.Unlock()
	if _, err := n.Reload(t.Context(), n.config(by(p))); err != nil {
		t.Fatal(err)
	}
	n.decides("five")
	// It learns of another transport.
	if _, err := n.Reload(t.Context(), n.config(by(p), add(n.world, "third", settings{}))); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.known, []string{"in", "radio", "third", "trunk"}) || p.open != 1 {
		t.Errorf("it knows the transports %v, and is open %d times", p.known, p.open)
	}
	p.edit("six")
	n.awaits("six", true)
	// The time zone goes to the pipeline, with a new term.
	vienna, err := time.LoadLocation("Europe/Vienna")
	if err != nil {
		t.Fatal(err)
	}
	changed, err := n.Reload(t.Context(), n.config(by(p), add(n.world, "third", settings{}), func(c *engine.Config) { c.Zone = vienna }))
	if err != nil || !slices.Equal(changed, []string{"zone"}) {
		t.Errorf("%v %v", changed, err)
	}
	n.decides("six")
	changed, err = n.Reload(t.Context(), n.config(by(p), func(c *engine.Config) {
		var elsewhere place
		elsewhere.Bundle.File = "papers.tar.gz"
		c.Policy.Settings = &elsewhere
	}))
	if s := n.policy(); err != nil || s.Source != "bundle papers.tar.gz" || s.Revision != "six" || !s.Current {
		t.Errorf("%v %v %+v", changed, err, s)
	}
	n.decides("six")
	n.end()
	if p.open != 0 {
		t.Errorf("%d sources are still open", p.open)
	}
}

// A reload that fails after the policies were exchanged goes back to those
// before, also in storage.
func TestPoliciesAfterAReloadThatFails(t *testing.T) {
	p, next := newPapers("one"), newPapers("two")
	n := start(t, newWorld(t), engine.Options{}, by(p))
	for _, broken := range []func(*engine.Config){set(observer, settings{Route: "GET /status"}), set(accounts, settings{Broken: true})} {
		if _, err := n.Reload(t.Context(), n.config(by(next), func(c *engine.Config) { c.Policy.Settings = &place{Dir: "./next"} }, broken)); err == nil {
			t.Fatal("it is taken")
		}
		n.awaits("one", true)
		n.decides("one")
	}
	n.eventually("the other source is closed", func() bool {
		next.mu.Lock()
		defer next.mu.Unlock()
		return next.open == 0
	})
	p.edit("three")
	n.awaits("three", true)
	n.decides("three")
}

// again runs a node on a disk that another process has left.
func again(t *testing.T, n *node, p *papers) (*node, error) {
	t.Helper()
	next := &node{t: t, world: newWorld(t), disk: n.disk, dir: n.dir, done: make(chan error, 1), log: &syncBuffer{}}
	ctx, stop := context.WithCancel(t.Context())
	next.Engine = engine.New(next.config(by(p)), slog.New(slog.NewTextHandler(next.log, nil)), engine.Options{})
	up := make(chan string, 1)
	go func() { next.done <- next.Run(ctx, func(admin string) { up <- admin }) }()
	select {
	case next.admin = <-up:
	case err := <-next.done:
		stop()
		return nil, err
	case <-time.After(testWait):
		t.Fatal("the node doesn't start")
	}
	next.stop = stop
	t.Cleanup(next.end)
	return next, nil
}

// A restart with broken policies goes on with the last good ones, says so, and
// takes the next good ones; not if those are too old.
func TestRestartWithBrokenPolicies(t *testing.T) {
	p := newPapers("one")
	n := start(t, newWorld(t), engine.Options{}, by(p))
	n.decides("one")
	n.end()
	p.edit("bad two")
	p.age = 0
	_, err := again(t, n, p)
	key, ok := errors.AsType[*engine.KeyError](err)
	if !ok || key.Key != "policy" || !strings.Contains(err.Error(), "a.rego:1: bad two\nand revision one, which is stored, may not stand in: max_age is 0") {
		t.Error(err)
	}
	p.age = time.Hour
	next, err := again(t, n, p)
	if err != nil {
		t.Fatal(err)
	}
	next.decides("one")
	if s := next.policy(); !s.StandingIn || s.Current || s.Trouble != "a.rego:1: bad two" {
		t.Errorf("%+v", s)
	}
	if log := next.log.text(); !strings.Contains(log, "the stored revision stands in") {
		t.Errorf("log:\n%s", log)
	}
	p.edit("three")
	next.awaits("three", true)
	next.decides("three")
	next.end()

	// Going back to an older content while the node is down is an edit, too.
	p.edit("one")
	last, err := again(t, n, p)
	if err != nil {
		t.Fatal(err)
	}
	last.decides("one")
}

// papered makes a member of a cluster decide by papers.
func papered(t *testing.T, disk *memory.Disk, name string, active bool, p *papers) *member {
	return join(t, disk, name, active, by(p))
}

// A standby that takes over decides as the active node did, whatever its own
// papers say, unless those were edited later.
func TestTakeOverDecidesAsTheActiveNodeDid(t *testing.T) {
	disk := memory.NewDisk()
	mine, yours := newPapers("one"), newPapers("one")
	a := papered(t, disk, "a", true, mine)
	b := papered(t, disk, "b", false, yours)
	a.decides("one")
	b.awaits("one", true)
	a.knows("b")
	mine.edit("two")
	a.awaits("two", true)
	b.awaits("two", false)
	if c := b.cluster(); c.Policy != "two" {
		t.Errorf("%+v", c)
	}
	b.eventually("it is known what each holds", func() bool {
		held := map[string]string{}
		for _, n := range b.cluster().Nodes {
			held[n.Node] = n.Policy
		}
		return held["a"] == "two" && held["b"] == "one"
	})
	a.end()
	b.plays(true)
	b.decides("two")
	if s := b.policy(); s.Current || !strings.Contains(s.Trouble, "the source of this node holds one") {
		t.Errorf("%+v", s)
	}
	if _, err := b.Reload(t.Context(), b.config(b.itself)); err != nil {
		t.Fatal(err)
	}
	b.decides("one")
	yours.edit("three")
	b.awaits("three", true)
	b.decides("three")
}

// A standby whose papers are broken takes over with what is stored.
func TestTakeOverWithBrokenPolicies(t *testing.T) {
	disk := memory.NewDisk()
	mine, yours := newPapers("one"), newPapers("one")
	a := papered(t, disk, "a", true, mine)
	b := papered(t, disk, "b", false, yours)
	mine.edit("two")
	a.awaits("two", true)
	yours.edit("bad")
	b.eventually("it says so", func() bool {
		status, text := b.send("GET", "/readyz", "")
		return status == 503 && strings.Contains(text, `"remarks":["policy: a.rego:1: bad"]`)
	})
	a.end()
	b.plays(true)
	b.decides("two")
	if s := b.policy(); !s.StandingIn {
		t.Errorf("%+v", s)
	}
}

// While nothing can be written new policies aren't in force.
func TestPoliciesThatCantBeStored(t *testing.T) {
	p := newPapers("one")
	disk := memory.NewDisk()
	l := &line{Storage: memory.Open(disk), freeze: make(chan struct{})}
	n := start(t, newWorld(t), engine.Options{}, by(p), onStorage(func() plugin.Storage { return l }))
	l.hold(true)
	p.edit("two")
	if s := n.policy(); s.Revision != "one" {
		t.Errorf("%+v", s)
	}
	if err := n.world.at("in").say(quick(t), "a", "b", "held up"); err == nil {
		t.Error("accepted by a storage that hangs")
	} else if _, ok := errors.AsType[*message.Failure](err); !ok && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	l.hold(false)
	n.awaits("two", true)
	n.decides("two")
}
