package tools

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
)

const evalLong = `Decides about a message as the server would, and shows the plan; what the policies don't say is marked as default.

The message is a SIP MESSAGE, captured or typed, in FILE.sip, or a question in JSON, in FILE.json: what policies read as
input, or a part of that. - is standard input, with either. --set says more, or something else. What nobody says is
assumed, and listed: text/plain, "Hello", whole, from 1001@sip.example.com, whose account has no telephone number, to
1002@sip.example.com, over the transport sip from 192.0.2.1, on 2026-01-02 at 12:00 UTC; a recipient in the sender's domain is
one of ours and has one device; no attributes; nothing was counted before.

  imgate policy eval --message question.json --set recipient.registered=false --set time=2026-01-02T23:30:00Z
  imgate policy eval ./policies --message captured.sip --set counters.per_sender=11 --explain

The exit status is 1 if there is no verdict, so that the server would refuse the message for now.` + whichDir

// evalFlags are the flags of policy eval.
type evalFlags struct {
	place
	output  *plugin.Choice
	message *string
	explain *bool
	zone    *string
	sets    assignments
}

// assignments is the flag --set, which may be there many times.
type assignments []string

// String is flag.Value.
func (a *assignments) String() string { return strings.Join(*a, " ") }

// Set is flag.Value.
func (a *assignments) Set(s string) error {
	*a = append(*a, s)
	return nil
}

func setupEval(flags *flag.FlagSet) plugin.Run {
	f := evalFlags{
		place:   newPlace(flags),
		output:  newOutput(flags, humanOutput, jsonOutput),
		message: flags.String("message", "", "the message: a `FILE` with a SIP MESSAGE or a question in JSON, or -"),
		explain: flags.Bool("explain", false, "show which service was chosen, why not the others, and the rules that had a say"),
		zone:    flags.String("zone", "", "the operator's time `ZONE`, such as Europe/Vienna; default: the question's, else UTC"),
	}
	flags.Var(&f.sets, "set", "say something of the question, as `PATH=VALUE`; may be repeated")
	return f.eval
}

func (f *evalFlags) eval(ctx context.Context, in plugin.Invocation) error {
	if *f.message == "" {
		return plugin.Usage("expected a message, for example: policy eval --message question.json")
	}
	config, err := f.config(in, in.Args)
	if err != nil {
		return err
	}
	d, err := f.question(in)
	if err != nil {
		return err
	}
	p, err := openPolicy(ctx, config)
	if err != nil {
		return refused(in, config, err)
	}
	shown, err := newDecision(ctx, p, d)
	if err != nil {
		return err
	}
	if f.output.Value == jsonOutput {
		err = printJSON(in.Out, shown.document(*f.explain))
	} else {
		err = shown.write(in.Out, *f.explain)
	}
	return errors.Join(err, shown.trouble())
}

// question reads the file, then what --set says.
func (f *evalFlags) question(in plugin.Invocation) (*draft, error) {
	d := newDraft(in.Protocols)
	if err := f.read(d, in.In); err != nil {
		return nil, err
	}
	for _, assignment := range f.sets {
		if err := d.set(assignment); err != nil {
			return nil, plugin.Usage("--set %w", err)
		}
	}
	zone, err := d.zone(*f.zone)
	if err != nil {
		return nil, plugin.Usage("--zone: expected the name of a time zone, such as Europe/Vienna: %w", err)
	}
	d.complete(zone)
	return d, nil
}

// maxMessageFile is how large a message may be, in octets.
const maxMessageFile = 1 << 20

func (f *evalFlags) read(d *draft, in io.Reader) error {
	var text []byte
	var err error
	name := *f.message
	if name == "-" {
		name = "standard input"
		text, err = readAtMost(in, name, maxMessageFile)
	} else {
		text, err = readLimited(name)
	}
	if err != nil {
		return err
	}
	if isJSON(name, text) {
		err = d.readJSON(text)
	} else {
		err = d.readSIP(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// isJSON goes by the name, and by what is in it where that doesn't tell.
func isJSON(name string, text []byte) bool {
	switch filepath.Ext(name) {
	case ".json":
		return true
	case ".sip":
		return false
	}
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
}

// decision is what came out.
type decision struct {
	question    plugin.Question // whole, with text and counters
	assumed     []string
	protocols   map[string]string // by transport
	policy      *decide.Policy
	explanation decide.Explanation
	failure     *message.Failure // nil: there is a plan
}

func newDecision(ctx context.Context, p *decide.Policy, d *draft) (decision, error) {
	q := d.question
	given := supply(&q)
	out := decision{question: d.question, assumed: d.assumed, protocols: d.protocols, policy: p}
	var err error
	if out.explanation, err = p.Explain(ctx, q, given); err != nil {
		out.failure = message.AsFailure(err)
		return out, nil
	}
	return out, out.checkCounters(given.Counters)
}

// checkCounters refuses counters of limits that the service doesn't have.
func (d decision) checkCounters(counters map[string]int) error {
	var known []string
	for _, l := range d.explanation.Plan.Limits {
		known = append(known, l.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if slices.Contains(known, name) {
			continue
		}
		if len(known) == 0 {
			return plugin.Usage("counters.%s: service %s declares no limits", name, d.explanation.Plan.Service)
		}
		return plugin.Usage("counters.%s: service %s has no such limit, expected one of %s", name, d.explanation.Plan.Service, strings.Join(known, ", "))
	}
	return nil
}

// isVerdict: that nobody is known by an address is one, too.
func (d decision) isVerdict() bool {
	return d.failure == nil || d.failure.Reason == message.UnknownRecipient
}

// trouble is an error if there is no verdict. The output has said which.
func (d decision) trouble() error {
	if d.isVerdict() {
		return nil
	}
	return errors.New("no verdict: the server would refuse the message for now")
}
