package decide

import (
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/match"
)

const (
	maxFacts  = 4    // that a plan may depend on to be remembered, besides the row
	maxMemory = 4096 // plans of a service; then it begins anew
)

// facts are the fields of a question that take few values. A service that reads
// nothing else, and the row that matched, makes the same few plans again and
// again: policies are pure, so these needn't be evaluated each time.
var facts = map[string]func(*matter) string{
	"message.class":        func(m *matter) string { return m.Message.Class },
	"message.type":         func(m *matter) string { return m.Message.Type },
	"message.inner":        func(m *matter) string { return m.Message.Inner },
	"message.segments":     func(m *matter) string { return strconv.Itoa(m.Message.Segments) },
	"message.missing":      func(m *matter) string { return strconv.Itoa(m.Message.Missing) },
	"sender.domain":        func(m *matter) string { return m.Sender.Domain },
	"sender.local":         func(m *matter) string { return strconv.FormatBool(m.Sender.Local) },
	"recipient.domain":     func(m *matter) string { return m.Recipient.Domain },
	"recipient.local":      func(m *matter) string { return strconv.FormatBool(m.Recipient.Local) },
	"recipient.registered": func(m *matter) string { return strconv.FormatBool(m.Recipient.Registered) },
	"recipient.devices":    func(m *matter) string { return strconv.Itoa(m.Recipient.Devices) },
	"transport":            func(m *matter) string { return m.Transport },
	"protocol":             func(m *matter) string { return m.Protocol },
}

// memo remembers a service's plans by the facts that they depend on.
type memo struct {
	reads           []func(*matter) string
	readsRow        bool // all of the row that matched
	readsAttributes bool // its attributes, which rows may share

	mu    sync.RWMutex
	plans map[situation]plugin.Plan
}

// situation is what the facts are for a message.
type situation struct {
	facts      [maxFacts]string
	claim      *match.Claim
	attributes *ast.Term
}

// newMemo returns a memo for plans that read these paths of the input, or nil
// if they read something that isn't one of the facts.
func newMemo(paths map[string]bool) *memo {
	m := &memo{plans: map[situation]plugin.Plan{}}
	for path := range paths {
		switch {
		case within(path, "match.attributes"):
			m.readsAttributes = true
		case within(path, "match"):
			m.readsRow = true
		case facts[path] == nil || len(m.reads) == maxFacts:
			return nil
		default:
			m.reads = append(m.reads, facts[path])
		}
	}
	return m
}

func (m *memo) situation(of *matter) (s situation) {
	for i, fact := range m.reads {
		s.facts[i] = fact(of)
	}
	if m.readsRow {
		s.claim = of.claim
	}
	if m.readsAttributes {
		s.attributes = of.claim.Attributes
	}
	return s
}

func (m *memo) recall(s situation) (plugin.Plan, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	plan, ok := m.plans[s]
	return plan, ok
}

// remember keeps a plan. Its facts are copied: they may be parts of a datagram.
func (m *memo) remember(s situation, plan plugin.Plan) {
	for i := range s.facts {
		s.facts[i] = strings.Clone(s.facts[i])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plans) >= maxMemory {
		clear(m.plans)
	}
	m.plans[s] = plan
}
