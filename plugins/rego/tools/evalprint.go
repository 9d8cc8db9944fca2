package tools

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
)

// The verdicts as policy eval prints them, beside those of a plan.
const (
	verdictUnknown = "unknown-recipient" // nothing is said of such recipients
	verdictNone    = "none"
	verdictType    = "unsupported-type"
	verdictLimit   = "limit-reached"
)

// decisionDocument is what policy eval prints as JSON.
type decisionDocument struct {
	Verdict    string          `json:"verdict"`
	Error      string          `json:"error,omitempty"`
	Service    string          `json:"service,omitempty"`
	Revision   string          `json:"revision"`
	Plan       any             `json:"plan,omitempty"`
	Defaults   []string        `json:"defaults,omitempty"`
	Limits     []limitView     `json:"limits,omitempty"`
	Question   plugin.Question `json:"question"`
	Assumed    []string        `json:"assumed"`
	Candidates []candidateView `json:"candidates,omitempty"`
	Rules      []ruleView      `json:"rules,omitempty"`
}

type limitView struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	Count   int    `json:"count"`
	Per     string `json:"per"`
	Counted int    `json:"counted"`
	Refuses bool   `json:"refuses"`
}

type ruleView struct {
	Place string `json:"place"`
	Rule  string `json:"rule"`
	Title string `json:"title,omitempty"`
	Value string `json:"value"`
}

func (d decision) document(explain bool) decisionDocument {
	doc := decisionDocument{
		Verdict: d.verdict(), Revision: d.policy.Revision, Service: d.explanation.Service,
		Question: d.question, Assumed: append([]string{}, d.assumed...), Limits: d.limits(),
	}
	if d.failure != nil {
		doc.Error = d.failure.Error()
	} else {
		doc.Plan, doc.Defaults = decide.PlanJSON(d.explanation.Plan), d.explanation.Default
	}
	if explain {
		doc.Candidates, doc.Rules = d.candidates(), d.rules()
	}
	return doc
}

func (d decision) verdict() string {
	switch {
	case !d.isVerdict():
		return verdictNone
	case d.failure != nil:
		return verdictUnknown
	case d.isUnsupported():
		return verdictType
	case slices.ContainsFunc(d.limits(), func(l limitView) bool { return l.Refuses }):
		return verdictLimit
	}
	return string(d.explanation.Plan.Processing)
}

// isUnsupported: the message's type may go over none of the plan's transports. One
// that nobody knows here speaks what it is called, for all we know.
func (d decision) isUnsupported() bool {
	plan := d.explanation.Plan
	if plan.Processing != plugin.Deliver || plan.ExternalRouting {
		return false
	}
	return !slices.ContainsFunc(plan.Transports, func(transport string) bool {
		types, limited := plan.MIME[cmp.Or(d.protocols[transport], transport)]
		return !limited || slices.Contains(types, d.question.Message.Type)
	})
}

func (d decision) limits() (views []limitView) {
	for _, l := range d.explanation.Plan.Limits {
		counted := d.question.Counters[l.Name]
		views = append(views, limitView{
			Name: l.Name, Key: l.Key, Count: l.Count, Per: plugin.DurationText(l.Per),
			Counted: counted, Refuses: l.Count > 0 && counted >= l.Count,
		})
	}
	return views
}

func (d decision) candidates() (views []candidateView) {
	for _, c := range d.explanation.Candidates {
		views = append(views, viewOf(c))
	}
	return views
}

func (d decision) rules() (views []ruleView) {
	for _, s := range d.explanation.Spoke {
		views = append(views, ruleView(s))
	}
	return views
}

// write prints the decision for people.
func (d decision) write(out io.Writer, explain bool) error {
	head := sheet{{"verdict", d.inWords()}}
	if d.explanation.Service != "" {
		head.row("service", d.service())
	}
	head.row("revision", d.policy.Revision)
	parts := []sheet{head}
	if d.failure == nil {
		parts = append(parts, d.planTable())
	}
	parts = append(parts, d.assumedTable())
	if explain {
		parts = append(parts, candidateTable(d.candidates()), d.ruleTable())
	}
	for i, part := range parts {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := part.write(out); err != nil {
			return err
		}
	}
	return nil
}

// service says which it is, and by what.
func (d decision) service() string {
	for _, c := range d.candidates() {
		if c.Wins {
			return c.taken()
		}
	}
	return d.explanation.Service
}

// inWords says what happens to the message.
func (d decision) inWords() string {
	switch verdict := d.verdict(); verdict {
	case verdictNone:
		return "none: " + d.failure.Error()
	case verdictUnknown:
		return "refused: " + d.failure.Error()
	case verdictType:
		return fmt.Sprintf("refused: unsupported-type: %s may not go over %s", d.question.Message.Type, strings.Join(d.explanation.Plan.Transports, ", "))
	case verdictLimit:
		i := slices.IndexFunc(d.limits(), func(l limitView) bool { return l.Refuses })
		return "refused for now: limit-reached: " + d.limits()[i].Name
	case string(plugin.Reject):
		return "reject: " + string(d.explanation.Plan.Reason)
	default:
		return verdict
	}
}

func (d decision) planTable() sheet {
	document := plain(decide.PlanJSON(d.explanation.Plan))
	t := sheet{{"PLAN", "VALUE", ""}}
	for _, path := range planPaths("", reflect.TypeFor[plugin.Plan]()) {
		mark := ""
		if d.isDefault(path) {
			mark = "default"
		}
		lines := wrapped(asText(lookup(document, path)))
		t.row(path, lines[0], mark)
		for _, line := range lines[1:] {
			t.row("", line, "")
		}
	}
	for _, l := range d.limits() {
		most := "only counted"
		if l.Count > 0 {
			most = fmt.Sprintf("at most %d", l.Count)
		}
		t.row("limits."+l.Name, fmt.Sprintf("%s in %s, %d before this one", most, l.Per, l.Counted))
	}
	return t
}

const wide = 60 // octets of a value in a line, as far as it has commas

// wrapped divides a value into lines, behind commas: the mark that follows it
// stays in sight.
func wrapped(value string) (lines []string) {
	line := ""
	for part := range strings.SplitAfterSeq(value, ",") {
		if line != "" && len(line)+len(part) > wide {
			lines, line = append(lines, line), ""
		}
		line += part
	}
	return append(lines, line)
}

// isDefault: the policies say nothing of an attribute, or of all that it is in.
func (d decision) isDefault(path string) bool {
	return slices.ContainsFunc(d.explanation.Default, func(name string) bool {
		return name == path || strings.HasPrefix(path, name+".")
	})
}

// planPaths returns the attributes of a plan in their order.
func planPaths(path string, t reflect.Type) (paths []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		if inner := t.Field(i).Type; inner.Kind() == reflect.Struct && len(planPaths(at, inner)) > 0 {
			paths = append(paths, planPaths(at, inner)...)
			continue
		}
		paths = append(paths, at)
	}
	return paths
}

// plain is a document as JSON has it.
func plain(document any) (value any) {
	text, err := json.Marshal(document)
	if err == nil {
		err = json.Unmarshal(text, &value)
	}
	if err != nil {
		return err.Error() // a plan is made of texts and numbers
	}
	return value
}

func lookup(document any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		section, _ := document.(map[string]any)
		document = section[name]
	}
	return document
}

func asText(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (d decision) assumedTable() sheet {
	t := sheet{{"ASSUMED", "VALUE"}}
	for _, path := range d.assumed {
		t.row(path, valueAt(d.question, path))
	}
	return t
}

func (d decision) ruleTable() sheet {
	t := sheet{{"RULE", "PLACE", "VALUE", "TITLE"}}
	for _, r := range d.rules() {
		t.row(r.Rule, r.Place, r.Value, r.Title)
	}
	return t
}
