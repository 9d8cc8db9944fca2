package app

import (
	"reflect"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// policyField is something that policies say, or read: its name with dots, and
// what its tags say of it.
type policyField struct {
	path, kind string
	usual      string // in Rego; empty: there is no default
	doc        string
	choices    []string
	example    string // a line of Rego; empty: none
}

// policiesPage describes all that a policy may say and read.
func policiesPage() page {
	p := page{name: "imgate-policies", section: 7, short: "what policies say and read"}
	p.blocks = append(p.blocks, heading("Description"))
	p.blocks = append(p.blocks, paragraphs(policiesText)...)
	p.blocks = append(p.blocks, block{literal: strings.Split(policyExample, "\n")}, block{text: policyCommands})
	p.blocks = append(p.blocks, heading("The plan"))
	p.blocks = append(p.blocks, paragraphs(planText)...)
	p.blocks = append(p.blocks, block{fields: planFields()})
	p.blocks = append(p.blocks, heading("The question"))
	p.blocks = append(p.blocks, paragraphs(questionText)...)
	p.blocks = append(p.blocks, block{fields: questionFields()})
	for _, part := range policyParts {
		p.blocks = append(p.blocks, heading(part.title))
		p.blocks = append(p.blocks, paragraphs(part.text)...)
	}
	p.blocks = append(p.blocks, heading("Reasons"), block{text: reasonsText}, block{terms: reasonTerms})
	return p
}

const policiesText = `A domain service policy decides what happens to a message. It is a Rego package under imgate.services, in a file of its own,
with four documents: match, asks, limits and plan. Only plan may depend on the message; what it reads of it is the document input.`

const policyExample = `package imgate.services.wholesale

match := {"domains": ["*.wholesale.example.com"], "prefixes": ["44"], "priority": 10}

asks := ["text"]

limits := {"per_sender": {"key": "sender.account", "count": 100, "per": "1m"}}

plan.transports := ["smpp"]

plan.processing := "reject" if startswith(lower(input.message.text), "win ")

plan.reason := "blocked"`

const policyCommands = "`imgate policy init` writes a directory to start from, `imgate policy test` runs its tests, `imgate policy check` says what a server would refuse, and " +
	"`imgate policy eval` shows what is decided about a message."

const planText = `Each attribute is a rule of its own, or a part of a document: plan.charging.mode := "event", or plan.charging := {"mode": "event"}.
What a policy doesn't say, and what is undefined for a message, has the default. Durations are texts with a unit: "500ms", "30s", "5m", "24h".`

const questionText = `The document input. A name that it doesn't have is an error when the policies are loaded.`

// limitKeys are the paths by which a limit may count.
const limitKeys = "message.type, message.class, sender.account, sender.address, sender.user, sender.domain, sender.number, sender.attributes.NAME, recipient.account, recipient.address, " +
	"recipient.user, recipient.domain, recipient.attributes.NAME, match.domain, match.prefix, match.attributes.NAME, transport, protocol, peer"

// policyParts are what isn't in the plan or the question.
var policyParts = []struct{ title, text string }{
	{"match", `Which recipients the service is for. It may be left out if rows of a data file name the service.

domains: a list of patterns of the recipient's domain: "sip.example.com" is that domain, "*.example.com" every one below it, "/sip[0-9]+\.example\.com/" a
regular expression (RE2) over the whole domain, "*" any domain, or none, "" none: a number without a domain. Left out: "*". prefixes: what the recipient's number begins with, in digits; a leading + doesn't
count. Left out: any number, or none. priority: a whole number; left out: 0.

Of several services that match, the one with the highest priority decides, then by the kind of the pattern: exact (and none), the longest suffix, expression, any; then
by the longest prefix. A tie is an error when the policies are loaded, and so is what can never be chosen because an identical or
wider match always goes before it. ` + "`imgate policy domains ADDRESS`" + ` shows who takes an address, and why not the others.`},
	{"Rows", `Data files, *.yaml, *.yml and *.json beside the policies, are read as data.NAME by their top-level names. The name domains is kept for rows: it maps patterns of
domains to services, a row or a list of rows each. Ten thousand domains are ten thousand rows and one service.

  domains:
    gold.example.com: {service: sms, attributes: {tariff: gold}}
    "*.sms.example.com":
      - {service: sms, prefixes: ["44"], priority: 10, attributes: {tariff: silver}}
      - {service: sms}

service is mandatory; prefixes and priority are as in match; attributes are the operator's own. A rule reads the row that matched as input.match.attributes, and
its pattern, prefix and priority as input.match.domain, input.match.prefix and input.match.priority. Where the match of the package itself matched, there are
no attributes.

Data files in a directory below are read below its name, as data.DIRECTORY.NAME. A name that two files give is an error.`},
	{"asks", `A list of what the question has only for services that ask for it: "text", as input.message.text. To read it without asking is an error when the policies are
loaded.`},
	{"limits", `Rate limits, at most eight, by name. Each has: key, what messages are counted by, such as "sender.account", or a list of at most eight such names; count, how many
messages with the same values are accepted in a window, left out or 0: they are only counted; per, how long a window is, from 1s to 744h. The window begins with
the first message. What is over a limit is refused for now, with the reason limit-reached and a Retry-After. Rules read how many were counted before as
input.counters.NAME. The windows of more than a minute survive a restart.

A key is one of ` + limitKeys + `. A value that a message doesn't have is empty, and all that have it empty are counted together: think of numbers, which have
no domain, and of accounts without the attribute. Without a key all the service's messages are counted together.

  limits := {
    "burst": {"key": "sender.account", "count": 10, "per": "1m"},
    "pair": {"key": ["sender.account", "recipient.address"], "per": "24h"},
  }`},
	{"Builtins", "Policies may call those builtins of OPA that reach nothing outside of the policy and whose work is bounded. `imgate policy init` writes their " +
		"list into a directory, as builtins.txt, with what a call may take at most. The time is input.time, and input.clock on the operator's clock."},
	{"No verdict", `An error, a contradiction between rules, an attribute that can't be what it is, or no plan within the deadline refuses the message for now, with the
reason policy-failed: the sender may try again, and log and metrics tell. So does an own subscriber for whom there is no service; anybody else
is an unknown recipient.`},
}

const reasonsText = "The words of plan.reason, plan.retry.reasons and plan.fallback.reasons. plan.reason takes only some of them."

// reasonTerms are the words that the plan's enums have.
var reasonTerms = []term{
	{"rejected", "The policy says no."},
	{"blocked", "The policy says no, and not who to blame."},
	{"forbidden", "Known, but not allowed."},
	{"unknown-recipient", "Nobody has this address."},
	{"declined", "The recipient doesn't want it."},
	{"incomplete", "Parts of the message never came."},
	{"unavailable", "The recipient can't be reached now."},
	{"no-answer", "Reached by all appearances, and silent."},
	{"busy", "The recipient is busy."},
	{"gone", "The recipient has left for good."},
	{"undelivered", "The next hop refused and doesn't say more."},
	{"unsupported-type", "The MIME type may not go over the transport."},
	{"too-large", "Over a limit of size."},
	{"limit-reached", "Over a limit of this sender or recipient."},
	{"overloaded", "The next hop has too much to do."},
	{"draining", "The next hop is being stopped."},
	{"standby", "The next hop isn't the active one."},
	{"storage-down", "The next hop can't keep anything just now."},
	{"internal", "A fault in the next hop."},
}

// planFields returns the attributes of a plan.
func planFields() []policyField {
	fields := tagged("plan", reflect.TypeFor[plugin.Plan]())
	for i, f := range fields {
		fields[i].example = f.path + " := " + f.example
	}
	return fields
}

// questionFields returns what the engine asks, and the row that the policies
// themselves choose by that.
func questionFields() []policyField {
	return append(tagged("input", reflect.TypeFor[plugin.Question]()),
		policyField{path: "input.match.domain", kind: "text", doc: "the pattern of the row, or of the package's match, that was chosen, as it is written there"},
		policyField{path: "input.match.prefix", kind: "text", doc: "its number prefix; empty: any number, or none"},
		policyField{path: "input.match.priority", kind: "whole number", doc: "its priority"},
		policyField{path: "input.match.attributes", kind: "object", doc: "what the row says in attributes; empty for the package's match"},
	)
}

// tagged returns the fields of a struct and of those in it, as Rego names them.
func tagged(path string, t reflect.Type) (fields []policyField) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		at := path + "." + name
		if hasFields(field.Type) {
			fields = append(fields, tagged(at, field.Type)...)
			continue
		}
		f := policyField{
			path: at, kind: typeInRego(field.Type), doc: field.Tag.Get("doc"), usual: field.Tag.Get("default"), example: field.Tag.Get("example"),
		}
		if enum := field.Tag.Get("enum"); enum != "" {
			f.choices = strings.Split(enum, ",")
		}
		fields = append(fields, f)
	}
	return fields
}

// hasFields tells whether a type is an object with names of its own.
func hasFields(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !readsText(t)
}

// typeInRego is what a policy writes, or reads, for a type.
func typeInRego(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return typeInRego(t.Elem())
	case t == durationType:
		return "duration"
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case readsText(t):
		return strings.ToLower(t.Name())
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "list of " + typeInRego(t.Elem())
	case t.Kind() == reflect.Map:
		return "object of " + typeInRego(t.Elem())
	case isWhole(t):
		return "whole number"
	}
	return "text"
}

// meaning is a field's doc and the words that it may be.
func (f policyField) meaning() string {
	if f.choices == nil {
		return f.doc
	}
	one := "; one of `"
	if strings.HasPrefix(f.kind, "list") {
		one = "; each is one of `"
	}
	return f.doc + one + strings.Join(f.choices, "`, `") + "`"
}
