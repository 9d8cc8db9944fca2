package rego

import (
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	maxFacts  = 4    // that a plan may depend on to be remembered
	maxMemory = 4096 // plans of a service; then it begins anew
)

// facts are the fields of a question that take few values. A service that reads
// nothing else makes the same few plans again and again: policies are pure, so
// these needn't be evaluated each time.
var facts = map[string]func(*plugin.Question) string{
	"message.class":        func(q *plugin.Question) string { return q.Message.Class },
	"message.type":         func(q *plugin.Question) string { return q.Message.Type },
	"sender.domain":        func(q *plugin.Question) string { return q.Sender.Domain },
	"recipient.domain":     func(q *plugin.Question) string { return q.Recipient.Domain },
	"recipient.local":      func(q *plugin.Question) string { return strconv.FormatBool(q.Recipient.Local) },
	"recipient.registered": func(q *plugin.Question) string { return strconv.FormatBool(q.Recipient.Registered) },
	"recipient.devices":    func(q *plugin.Question) string { return strconv.Itoa(q.Recipient.Devices) },
	"transport":            func(q *plugin.Question) string { return q.Transport },
	"protocol":             func(q *plugin.Question) string { return q.Protocol },
}

// memo remembers a service's plans by the facts that they depend on.
type memo struct {
	reads []func(*plugin.Question) string

	mu    sync.RWMutex
	plans map[situation]plugin.Plan
}

// situation is what the facts are for a message.
type situation [maxFacts]string

// newMemo returns a memo for plans that read these paths of the input, or nil
// if they read something that isn't one of the facts.
func newMemo(paths map[string]bool) *memo {
	if len(paths) > maxFacts {
		return nil
	}
	m := &memo{plans: map[situation]plugin.Plan{}}
	for path := range paths {
		fact := facts[path]
		if fact == nil {
			return nil
		}
		m.reads = append(m.reads, fact)
	}
	return m
}

func (m *memo) situation(q *plugin.Question) (s situation) {
	for i, fact := range m.reads {
		s[i] = fact(q)
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
	for i := range s {
		s[i] = strings.Clone(s[i])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plans) >= maxMemory {
		clear(m.plans)
	}
	m.plans[s] = plan
}

// inputPath returns a reference below input as a path, "message.class". What
// isn't fixed when the policies are loaded is cut off, so input.message[x] is
// the path "message".
func inputPath(ref ast.Ref) string {
	var names []string
	for _, term := range ref[1:] {
		name, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		names = append(names, string(name))
	}
	return strings.Join(names, ".")
}
