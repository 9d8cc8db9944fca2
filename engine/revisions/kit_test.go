package revisions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// disk is a storage that several nodes share. It can refuse writes.
type disk struct {
	mu      sync.Mutex
	rows    map[string][]byte // by table and key
	refuses error
	written int // octets
	largest int // octets of one commit
}

func newDisk() *disk { return &disk{rows: map[string][]byte{}} }

// Commit is plugin.Tables. What is refused is written never.
func (d *disk) Commit(changes []plugin.Change) plugin.Commitment {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuses != nil {
		return done{d.refuses}
	}
	size := 0
	for _, c := range changes {
		size += len(c.Value)
		name := c.Table + "\x00" + string(c.Key)
		if c.Value == nil {
			delete(d.rows, name)
			continue
		}
		if len(c.Value) > maxPiece {
			return done{fmt.Errorf("a row of %d octets", len(c.Value))}
		}
		d.rows[name] = bytes.Clone(c.Value)
	}
	d.written, d.largest = d.written+size, max(d.largest, size)
	return done{}
}

type done struct{ err error }

func (d done) Wait(context.Context) error { return d.err }

// Scan is plugin.Tables.
func (d *disk) Scan(_ context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rows []plugin.Change
	for name, value := range d.rows {
		at, key, _ := strings.Cut(name, "\x00")
		if at == table && key >= string(from) && (to == nil || key < string(to)) {
			rows = append(rows, plugin.Change{Table: table, Key: []byte(key), Value: bytes.Clone(value)})
		}
	}
	slices.SortFunc(rows, func(a, b plugin.Change) int { return bytes.Compare(a.Key, b.Key) })
	return rows[:min(n, len(rows))], nil
}

func (d *disk) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = err
}

func (d *disk) count(table string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.rows {
		if strings.HasPrefix(name, table+"\x00") {
			n++
		}
	}
	return n
}

// files is a source of policies whose content a test edits. What begins with
// "bad" can't be compiled, "gone" not be read; "slow" is compiled until its
// context ends. The content's first word is its revision.
type files struct {
	mu       sync.Mutex
	content  string
	age      time.Duration
	changed  chan struct{}
	deaf     error // why it can't be watched
	compiled int
	refuses  string // a revision that this one can't compile
	closed   bool
	hangs    chan struct{} // reading goes on until it is closed; nil: it doesn't hang
}

func newFiles(content string) *files {
	return &files{content: content, age: 24 * time.Hour, changed: make(chan struct{}, 1)}
}

// hang lets reading hang until what it returns is called.
func (f *files) hang() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs = make(chan struct{})
	hangs := f.hangs
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hangs = nil
		close(hangs)
	}
}

// edit changes the content, and says so.
func (f *files) edit(content string) {
	f.set(content)
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *files) set(content string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content = content
}

func (f *files) Read(context.Context) (plugin.Bundle, error) {
	f.mu.Lock()
	hangs := f.hangs
	f.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasPrefix(f.content, "gone") {
		return plugin.Bundle{}, errors.New(f.content)
	}
	revision, _, _ := strings.Cut(f.content, " ")
	return plugin.Bundle{Revision: revision, Content: []byte(f.content)}, nil
}

func (f *files) Compile(ctx context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	if strings.HasPrefix(string(b.Content), "slow") {
		<-ctx.Done()
		return nil, plugin.PolicyReport{}, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.compiled++
	switch {
	case f.closed:
		return nil, plugin.PolicyReport{}, errors.New("compiles after the end")
	case strings.HasPrefix(string(b.Content), "panic"):
		panic(b.Revision)
	case strings.HasPrefix(string(b.Content), "bad"), b.Revision == f.refuses:
		return nil, plugin.PolicyReport{}, fmt.Errorf("a.rego:1: %s\na.rego:2: as bad", b.Revision)
	}
	return verdict(b.Content), plugin.PolicyReport{Services: []string{"all", b.Revision}, Tests: 3, Coverage: 50, Warnings: []string{"careful"}}, nil
}

func (f *files) Watch(ctx context.Context) error {
	f.mu.Lock()
	deaf := f.deaf
	f.mu.Unlock()
	if deaf != nil {
		return deaf
	}
	select {
	case <-f.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *files) MaxAge() time.Duration { return f.age }

func (f *files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// verdict is a policy that says which content it was made of.
type verdict []byte

func (v verdict) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	return plugin.Plan{Service: string(v)}, nil
}

// node is a book with what surrounds it.
type node struct {
	*Book
	t       *testing.T
	name    string
	files   *files
	disk    *disk
	source  *Source
	peers   *peers
	metrics *plugin.Metrics
	log     *bytes.Buffer // of one synctest bubble: read when all is quiet
	logging *sync.Mutex
	unfollow,
	unwatch context.CancelFunc
}

// newNode makes a node that has yet to start. Nodes that are peers know what
// each other's source holds.
func newNode(t *testing.T, name string, d *disk, f *files) *node {
	n := &node{t: t, name: name, files: f, disk: d, peers: &peers{}, metrics: plugin.NewMetrics(), log: &bytes.Buffer{}, logging: &sync.Mutex{}}
	n.Book = New(Config{
		Node: name, Log: slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: n.metrics, Stored: d,
		Peers: func() map[string]Held {
			held := map[string]Held{}
			for _, p := range n.peers.all() {
				held[p.name] = p.Held()
			}
			return held
		},
	})
	n.source = NewSource(f, "dir ./"+name, n.c.Log)
	return n
}

func (n *node) Write(line []byte) (int, error) {
	n.logging.Lock()
	defer n.logging.Unlock()
	return n.log.Write(line)
}

func (n *node) said(text string) int {
	n.logging.Lock()
	defer n.logging.Unlock()
	return strings.Count(n.log.String(), text)
}

// boot starts a node as a standby.
func boot(t *testing.T, name string, d *disk, f *files) *node {
	t.Helper()
	n := newNode(t, name, d, f)
	if err := n.Start(t.Context(), n.source); err != nil {
		t.Fatalf("%s doesn't start: %v", name, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n.unwatch = cancel
	n.Watch(ctx)
	n.follow()
	return n
}

func (n *node) follow() {
	ctx, cancel := context.WithCancel(n.t.Context())
	n.unfollow = cancel
	n.Follow(ctx)
}

// lead makes it the active one.
func (n *node) lead() error {
	n.unfollow()
	return n.Lead(n.t.Context(), n.disk)
}

func (n *node) mustLead() {
	n.t.Helper()
	if err := n.lead(); err != nil {
		n.t.Fatalf("%s can't lead: %v", n.name, err)
	}
}

// rest makes it a standby again.
func (n *node) rest() {
	n.End()
	n.follow()
}

// stop ends the process.
func (n *node) stop() {
	n.End()
	n.unfollow()
	n.unwatch()
	n.Wait()
	if err := n.source.Close(); err != nil {
		n.t.Error(err)
	}
}

// decided checks what decides.
func (n *node) decided(want string) {
	n.t.Helper()
	plan, err := n.Decide(n.t.Context(), plugin.Question{}, plugin.Given{})
	if err != nil || plan.Service != want {
		n.t.Errorf("on %s %q decides, want %q (%v)", n.name, plan.Service, want, err)
	}
}

// is checks what is told: the revision in force, and what is wrong.
func (n *node) is(revision string, current bool, trouble string) {
	n.t.Helper()
	s := n.Status()
	if s.Revision != revision || s.Current != current || !strings.Contains(s.Trouble, trouble) || (trouble == "") != (s.Trouble == "") {
		n.t.Errorf("%s says %+v, want revision %s, current=%t, trouble %q", n.name, s, revision, current, trouble)
	}
}

// metric reads a gauge or a counter.
func (n *node) metric(name, outcome string) float64 {
	for _, s := range n.metrics.Series() {
		if s.Name == name && (outcome == "" || slices.Contains(s.Labels, plugin.Label{Name: "outcome", Value: outcome})) {
			return s.Value()
		}
	}
	return -1
}

// peers are the nodes that one hears of.
type peers struct {
	mu    sync.Mutex
	nodes []*node
}

func (p *peers) all() []*node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes
}

func together(nodes ...*node) {
	for _, n := range nodes {
		n.peers.mu.Lock()
		n.peers.nodes = nodes
		n.peers.mu.Unlock()
	}
}
