package plugintest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// shelf is what a soundSource reads: a text that is changed now and then.
type shelf struct {
	mu      sync.Mutex
	text    string
	version int
	news    chan struct{} // closed with the next change
}

func newShelf() *shelf { return &shelf{text: "policy 0.", news: make(chan struct{})} }

func (s *shelf) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
	s.version++
	close(s.news)
	s.news = make(chan struct{})
}

func (s *shelf) look() (text string, version int, news chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text, s.version, s.news
}

// soundSource is a source over a shelf: its policies label a message with the
// whole text. Each of its parts can be spoiled.
type soundSource struct {
	shelf   *shelf
	version int // that was read last

	read     func(plugin.Bundle) plugin.Bundle
	compile  func(context.Context, plugin.Bundle) (plugin.Policy, error) // nil, nil: as it should
	watch    func(context.Context) (done bool, err error)
	closed   bool
	untimely bool // its policies end with it
}

func (s *soundSource) Read(context.Context) (plugin.Bundle, error) {
	text, version, _ := s.shelf.look()
	s.version = version
	b := plugin.Bundle{Revision: "rev-" + strings.Trim(text, "policy ."), Content: []byte(text)}
	if s.read != nil {
		b = s.read(b)
	}
	return b, nil
}

func (s *soundSource) Compile(ctx context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	if s.compile != nil {
		if p, err := s.compile(ctx, b); p != nil || err != nil {
			return p, plugin.PolicyReport{}, err
		}
	}
	text := string(b.Content)
	if !strings.HasPrefix(text, "policy ") || !strings.HasSuffix(text, ".") {
		return nil, plugin.PolicyReport{}, errors.New("1: not a policy")
	}
	return s.policy(b), plugin.PolicyReport{}, nil
}

func (s *soundSource) policy(b plugin.Bundle) *soundPolicy {
	return &soundPolicy{spoil: func(_ plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
		if s.untimely && s.closed {
			return plugin.Plan{}, message.FailForNow(message.PolicyFailed, "closed")
		}
		plan.Revision, plan.Labels = b.Revision, map[string]string{"text": string(b.Content)}
		return plan, err
	}}
}

func (s *soundSource) Watch(ctx context.Context) error {
	if s.watch != nil {
		if done, err := s.watch(ctx); done {
			return err
		}
	}
	_, version, news := s.shelf.look()
	if version != s.version {
		return nil
	}
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *soundSource) MaxAge() time.Duration { return time.Hour }

func (s *soundSource) Close() error {
	s.closed = true
	return nil
}

// sources makes a harness around sources that are spoiled.
func sources(spoil func(*soundSource)) func(T) PolicySourceHarness {
	return func(T) PolicySourceHarness {
		shelf := newShelf()
		open := func(over string) *soundSource {
			s := &soundSource{shelf: shelf}
			if over != "" {
				s.shelf = newShelf()
				s.shelf.write(over)
			}
			spoil(s)
			return s
		}
		return PolicySourceHarness{
			Open:      func(T) plugin.PolicySource { return open("") },
			Elsewhere: func(T) plugin.PolicySource { return open("policy 7.") },
			Write:     func(_ T, content int) { shelf.write(fmt.Sprintf("policy %d.", content)) },
			Break:     func(T) { shelf.write("no p") },
			Good:      goodQuestion,
		}
	}
}

func readsAs(spoil func(plugin.Bundle) plugin.Bundle) func(T) PolicySourceHarness {
	return sources(func(s *soundSource) { s.read = spoil })
}

func compilesAs(compile func(*soundSource, context.Context, plugin.Bundle) (plugin.Policy, error)) func(T) PolicySourceHarness {
	return sources(func(s *soundSource) {
		s.compile = func(ctx context.Context, b plugin.Bundle) (plugin.Policy, error) { return compile(s, ctx, b) }
	})
}

// changing gives each reading another revision of the same length, from the
// second one on.
func changing() func(T) PolicySourceHarness {
	return sources(func(s *soundSource) {
		reads := 0
		s.read = func(b plugin.Bundle) plugin.Bundle {
			reads++
			if b.Revision == "rev-0" && reads > 2 {
				b.Content = append(b.Content[:len(b.Content):len(b.Content)], '.')
			}
			return b
		}
	})
}

func TestPolicySourceMatrix(t *testing.T) {
	t.Parallel()
	prove(t, policySourceCases, sources(func(*soundSource) {}), []fault[PolicySourceHarness]{
		{"reads something else each time", "what is read is within the limits, and the same until it changes", changing()},
		{"has a name for a revision", "what is read is within the limits, and the same until it changes",
			readsAs(func(b plugin.Bundle) plugin.Bundle { b.Revision = "of " + b.Revision; return b })},
		{"has a long revision", "what is read is within the limits, and the same until it changes",
			readsAs(func(b plugin.Bundle) plugin.Bundle {
				b.Revision += strings.Repeat("0", plugin.MaxRevision)
				return b
			})},
		{"counts its revisions", "equal contents have equal revisions, and others other ones",
			sources(func(s *soundSource) {
				s.read = func(b plugin.Bundle) plugin.Bundle { b.Revision = fmt.Sprint(s.version); return b }
			})},
		{"names its own revision", "a plan names the revision of its bundle",
			compilesAs(func(s *soundSource, _ context.Context, b plugin.Bundle) (plugin.Policy, error) {
				if string(b.Content) != "policy 0." {
					return nil, nil
				}
				p := s.policy(b)
				named := p.spoil
				p.spoil = func(q plugin.Question, plan plugin.Plan, err error) (plugin.Plan, error) {
					plan, err = named(q, plan, err)
					plan.Revision = "of my own"
					return plan, err
				}
				return p, nil
			})},
		{"compiles what it has read itself", "what was read here decides the same there",
			compilesAs(func(s *soundSource, _ context.Context, b plugin.Bundle) (plugin.Policy, error) {
				if text, _, _ := s.shelf.look(); text == "policy 7." {
					b.Content = []byte(text)
					return s.policy(b), nil
				}
				return nil, nil
			})},
		{"takes everything from its shelf", "what can't be used is an error",
			compilesAs(func(s *soundSource, _ context.Context, b plugin.Bundle) (plugin.Policy, error) {
				if string(b.Content) == "no p" {
					return s.policy(b), nil
				}
				return nil, nil
			})},
		{"panics on what is damaged", "a bundle that isn't one is an error",
			compilesAs(func(_ *soundSource, _ context.Context, b plugin.Bundle) (plugin.Policy, error) {
				if len(b.Content) == 0 {
					panic("index out of range")
				}
				return nil, nil
			})},
		{"takes the half", "a bundle that isn't one is an error",
			compilesAs(func(s *soundSource, _ context.Context, b plugin.Bundle) (plugin.Policy, error) {
				if len(b.Content) == len("policy 0.")/2 && string(b.Content) != "no p" {
					return s.policy(b), nil
				}
				return nil, nil
			})},
		{"compiles for ever", "compiling ends soon after its context",
			compilesAs(func(_ *soundSource, ctx context.Context, _ plugin.Bundle) (plugin.Policy, error) {
				if errors.Is(ctx.Err(), context.Canceled) {
					select {}
				}
				return nil, nil
			})},
		{"watches for ever", "a watch ends with its context",
			sources(func(s *soundSource) {
				s.watch = func(ctx context.Context) (bool, error) {
					_, _, news := s.shelf.look()
					if _, version, _ := s.shelf.look(); version == s.version {
						<-news
					}
					return true, nil
				}
			})},
		{"sees nothing while it watches", "a watch notices what changes during it",
			sources(func(s *soundSource) {
				s.watch = func(ctx context.Context) (bool, error) {
					if _, version, _ := s.shelf.look(); version != s.version {
						return true, nil
					}
					<-ctx.Done()
					return true, ctx.Err()
				}
			})},
		{"sees nothing before it watches", "a watch notices what changed before it",
			sources(func(s *soundSource) {
				s.watch = func(ctx context.Context) (bool, error) {
					_, _, news := s.shelf.look()
					select {
					case <-news:
						return true, nil
					case <-ctx.Done():
						return true, ctx.Err()
					}
				}
			})},
		{"takes its policies with it", "policies outlive their source", sources(func(s *soundSource) { s.untimely = true })},
	})
}

// A source that is a part of the program keeps the contract too.
func TestAlwaysIsASource(t *testing.T) {
	PolicySource(t, func(T) PolicySourceHarness {
		open := func(T) plugin.PolicySource { return plugin.Always("1", &soundPolicy{}) }
		return PolicySourceHarness{Open: open, Elsewhere: open, Good: goodQuestion}
	})
}
