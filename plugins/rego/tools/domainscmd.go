package tools

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/gate"
	"github.com/imgate/imgate/plugins/rego/match"
	"github.com/imgate/imgate/plugins/rego/source"
)

// domainsDocument is what policy domains prints as JSON.
type domainsDocument struct {
	Address    string          `json:"address"`
	Service    string          `json:"service,omitempty"` // none: no service takes it
	Candidates []candidateView `json:"candidates"`
}

// candidateView is a service's claim to a recipient. Place is "file:line".
type candidateView struct {
	Service  string `json:"service"`
	Wins     bool   `json:"wins"`
	Place    string `json:"place,omitempty"`
	Domain   string `json:"domain,omitempty"`
	Prefix   string `json:"prefix,omitempty"`
	Priority int    `json:"priority"`
	Why      string `json:"why"`
}

func setupDomains(flags *flag.FlagSet) plugin.Run {
	place := newPlace(flags)
	output := newOutput(flags, humanOutput, jsonOutput)
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) == 0 {
			return plugin.Usage("expected an address, for example: policy domains 1002@sip.example.com")
		}
		recipient, err := readRecipient(in.Args[0])
		if err != nil {
			return err
		}
		config, err := place.config(in, in.Args[1:])
		if err != nil {
			return err
		}
		p, err := openPolicy(ctx, config)
		if err != nil {
			return refused(in, config, err)
		}
		d := domainsOf(p, recipient)
		if output.Value == jsonOutput {
			err = printJSON(in.Out, d)
		} else {
			err = d.write(in.Out)
		}
		if err == nil && d.Service == "" {
			err = fmt.Errorf("no service takes %s", recipient)
		}
		return err
	}
}

// openPolicy makes a policy of what is in a place, without its tests: who asks
// what a policy says may be writing them.
func openPolicy(ctx context.Context, config source.Config) (*decide.Policy, error) {
	s, err := source.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	return gate.Beside(ctx, func(ctx context.Context) (*decide.Policy, error) {
		p, errs := decide.Load(ctx, s, config.Deadline, decide.Environment{})
		return p, errors.Join(errs...)
	})
}

// readRecipient reads user@domain, or a number.
func readRecipient(text string) (message.Address, error) {
	text = strings.TrimPrefix(text, "sip:")
	if strings.Contains(text, "@") {
		a, err := message.ParseAddress(text)
		if err != nil {
			return a, plugin.Usage("%q: %w", text, err)
		}
		if err := checkDomain(a.Host); err != nil {
			return a, plugin.Usage("%q: %w", text, err)
		}
		return a, nil
	}
	digits := strings.TrimPrefix(text, "+")
	if digits == "" || len(digits) > match.MaxPrefix || strings.Trim(digits, "0123456789") != "" {
		return message.Address{}, plugin.Usage("%q: expected user@domain or a number, for example 1002@sip.example.com", text)
	}
	return message.Address{User: text}, nil
}

func domainsOf(p *decide.Policy, a message.Address) domainsDocument {
	d := domainsDocument{Address: a.String(), Candidates: []candidateView{}}
	for _, c := range p.Candidates(plugin.QuestionRecipient{Address: a.String(), User: a.User, Domain: a.Host}) {
		d.Candidates = append(d.Candidates, viewOf(c))
		if c.Wins {
			d.Service = c.Service
		}
	}
	return d
}

func viewOf(c match.Candidate) candidateView {
	return candidateView{
		Service: c.Service, Wins: c.Wins, Place: c.Place, Domain: c.Domain, Prefix: c.Prefix, Priority: c.Priority, Why: c.Why,
	}
}

func (d domainsDocument) write(out io.Writer) error {
	i := slices.IndexFunc(d.Candidates, func(c candidateView) bool { return c.Wins })
	if i >= 0 {
		fmt.Fprintf(out, "%s: service %s\n\n", printable(d.Address), d.Candidates[i].taken())
	}
	return candidateTable(d.Candidates).write(out)
}

// taken says which service it is, and by what.
func (c candidateView) taken() string {
	return c.Service + ", by " + cmp.Or(c.Domain, "no domain") + " in " + c.Place
}

func candidateTable(candidates []candidateView) sheet {
	t := sheet{{"SERVICE", "TAKES IT", "PRIORITY", "DOMAIN", "PREFIX", "PLACE", "WHY"}}
	for _, c := range candidates {
		takes := "no"
		if c.Wins {
			takes = "yes"
		}
		t.row(c.Service, takes, strconv.Itoa(c.Priority), cmp.Or(c.Domain, "-"), cmp.Or(c.Prefix, "-"), cmp.Or(c.Place, "-"), c.Why)
	}
	return t
}
