package gate

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
)

// shipped are the policies that we ship, with their data and tests.
const shipped = "../../../policies"

// TestShippedPolicies runs the tests in package policies with the builtins and
// the strictness that production has, and wants every rule tried.
func TestShippedPolicies(t *testing.T) {
	s, err := source.Open(t.Context(), source.Config{Dir: shipped})
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunTests(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s: %s failed: %s\n%s", r.Place, r.Name, r.Reason, r.Output)
		}
	}
	for _, f := range report.Files {
		if f.Coverage < 100 {
			t.Errorf("%s: the tests cover %.1f %%, want 100; not covered: %v", f.Path, f.Coverage, f.Uncovered)
		}
	}
	if len(report.Results) < 30 || len(report.Files) != 6 {
		t.Errorf("%d tests of %d services, want more", len(report.Results), len(report.Files))
	}
}

// openShipped opens the policies as a node would that has all they need.
func openShipped(t *testing.T, config source.Config) *decide.Policy {
	t.Helper()
	config.Deadline, config.Coverage = time.Second, 100
	s, err := source.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, config, decide.Environment{Transports: []string{"sip", "smpp", "backup"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range v.Report.Warnings {
		t.Error(warning)
	}
	return v.Policy
}

// stranger makes the recipient nobody of ours.
func stranger(q *plugin.Question) {
	q.Recipient.Local, q.Recipient.Registered, q.Recipient.Devices = false, false, 0
}

// TestShippedSideBySide asks all services that we ship, in one directory with
// the data that they are shipped with.
func TestShippedSideBySide(t *testing.T) {
	p := openShipped(t, source.Config{Dir: shipped})
	for _, c := range []struct {
		name, recipient, service string
		ask                      func(*plugin.Question)
		more                     plugin.Given
		want                     func(plugin.Plan) bool
	}{
		{"a subscriber", "1002@sip.example.com", "onnet", nil, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Deliver && p.Charging.Mode == plugin.ChargeEvent
		}},
		{"an SMS", "+447700900123@sms.example.com", "sms", stranger, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Charging.Destination == "sms" && p.Charging.Mode == plugin.ChargeEvent && p.Charging.Units == 1 && p.Charging.When == plugin.OnHandover &&
				p.Answer == plugin.AnswerAccepted && p.Retry.Attempts == 30 && slices.Equal(p.Transports, []string{"smpp"})
		}},
		{"a premium number", "+449012345678@sms.example.com", "sms", stranger, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Charging.Destination == "premium"
		}},
		{"no number", "alice@sms.example.com", "onnet", stranger, plugin.Given{}, func(p plugin.Plan) bool {
			return !slices.Contains(p.Transports, "smpp") // and so nobody has the address
		}},
		{"an ESME's SMS", "+449012345678", "sms", stranger, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Charging.Destination == "premium" && p.Charging.Mode == plugin.ChargeEvent && slices.Equal(p.Transports, []string{"smpp"})
		}},
		{"from a phone to one of ours", "+447700900001", "sms", func(q *plugin.Question) {
			q.Sender.Local = false
		}, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Deliver && p.Charging.Mode == plugin.ChargeNone && slices.Equal(p.Transports, []string{"sip", "smpp-server"})
		}},
		{"from a phone to nobody", "+447700900123", "sms", func(q *plugin.Question) {
			stranger(q)
			q.Sender.Local = false
		}, plugin.Given{}, func(p plugin.Plan) bool { return p.Processing == plugin.Reject && p.Reason == message.UnknownRecipient }},
		{"over the border", "7@blue.example.com", "border", func(q *plugin.Question) {
			q.Sender.Attributes = map[string]string{"environment": "red"}
		}, plugin.Given{}, func(p plugin.Plan) bool { return p.Processing == plugin.Reject && p.Reason == message.Blocked }},
		{"within an environment", "7@shop.red.example.com", "border", func(q *plugin.Question) {
			q.Sender.Attributes = map[string]string{"environment": "red"}
		}, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Deliver && p.Labels["environment"] == "red"
		}},
		{"at night", "1009@quiet.example.com", "quiet", func(q *plugin.Question) {
			q.Clock = plugin.ClockAt(time.Date(2026, 1, 31, 23, 30, 0, 0, time.UTC), time.UTC)
		}, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Reject && p.Reason == message.Unavailable
		}},
		{"a campaign's fourth message", "+447700900123@campaign.example.com", "rate", func(q *plugin.Question) {
			q.Sender.User = "2424"
		}, plugin.Given{Counters: map[string]int{"number": 3}}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Reject && len(p.Limits) == 2
		}},
		{"STOP", "2424@campaign.example.com", "rate", nil, plugin.Given{Words: "Stop!"}, func(p plugin.Plan) bool {
			return p.Processing == plugin.Deliver && p.Labels["opt-out"] == "spring"
		}},
		{"a national number", "07700900123@dial.example.com", "rewrite", func(q *plugin.Question) {
			q.Sender.Attributes = map[string]string{"hidden": "yes"}
		}, plugin.Given{}, func(p plugin.Plan) bool {
			return p.Rewrite.Recipient.String() == "+447700900123" && p.Rewrite.Sender.String() == "+442079460999" &&
				slices.Equal(p.Fallback.Transports, []string{"backup"}) && p.Retry.Unknown == plugin.UnknownFail
		}},
	} {
		q := regotest.Typical()
		q.Message.Segments = 1
		q.Recipient.Address = c.recipient
		q.Recipient.User, q.Recipient.Domain, _ = strings.Cut(c.recipient, "@")
		if c.ask != nil {
			c.ask(&q)
		}
		if plan, err := p.Decide(t.Context(), q, c.more); err != nil || plan.Service != c.service || !c.want(plan) {
			t.Errorf("%s: got %+v, %v", c.name, plan, err)
		}
	}
}

func TestShippedPlan(t *testing.T) {
	p := openShipped(t, source.Config{})
	plan, err := p.Decide(context.WithoutCancel(t.Context()), regotest.Typical(), plugin.Given{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Revision) != 12 {
		t.Errorf("revision %q, want 12 hexadecimal digits", plan.Revision)
	}
	want := plugin.DefaultPlan()
	want.Service, want.Revision = "onnet", plan.Revision
	want.MIME = map[string][]string{
		"sip": {
			"text/plain", "message/cpim", "text/html",
			"application/im-iscomposing+xml", "message/imdn+xml", "multipart/mixed", "multipart/alternative", "multipart/related",
			"application/x-acro-filetransfer+json",
		},
		"smpp": {"text/plain", "message/cpim"},
	}
	want.Transports = []string{"sip", "smpp-server"}
	want.Charging.Mode = plugin.ChargeEvent
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got  %+v\nwant %+v", plan, want)
	}
	q := regotest.Typical()
	for _, class := range []string{"composing", "notification"} {
		q.Message.Class = class
		if plan, err := p.Decide(t.Context(), q, plugin.Given{}); err != nil || plan.Charging.Mode != plugin.ChargeNone {
			t.Errorf("%s: got %+v, %v, want it free", class, plan.Charging, err)
		}
	}
	q = regotest.Typical()
	q.Sender.Local = false
	if plan, err := p.Decide(t.Context(), q, plugin.Given{}); err != nil || plan.Charging.Mode != plugin.ChargeNone {
		t.Errorf("from a vendor: got %+v, %v, want it free", plan.Charging, err)
	}
}

// TestReadme takes the files that the operator's page shows as a directory, and
// asks its services.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(shipped, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	blocks := regexp.MustCompile("(?s)```(?:rego|yaml)\n# (\\S+)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 5 {
		t.Fatalf("%d files were found", len(blocks))
	}
	for _, block := range blocks {
		if err := os.WriteFile(filepath.Join(dir, block[1]), []byte(block[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := source.Config{Dir: dir, Deadline: time.Second}
	s, err := source.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(t.Context(), s, config, decide.Environment{})
	if err != nil || v.Report.Tests != 1 || !slices.Equal(v.Report.Services, []string{"shop", "uk", "wholesale"}) {
		t.Fatalf("%+v, %v", v.Report, err)
	}
	q := regotest.Typical()
	for _, c := range []struct{ number, account string }{{"+447700900000", "blue-uk"}, {"+4366412345678", "blue"}} {
		q.Recipient = plugin.QuestionRecipient{User: c.number, Domain: "a.blue.example.net"}
		plan, err := v.Policy.Decide(t.Context(), q, plugin.Given{})
		if err != nil || plan.Processing != plugin.Reject || plan.Store != 4*time.Hour || plan.Charging.UnitSize != 140 || plan.Charging.Account != c.account {
			t.Errorf("got %+v, %v", plan, err)
		}
	}
	q.Recipient = plugin.QuestionRecipient{User: "+447700900000", Domain: "gw7.example.net"}
	if plan, err := v.Policy.Decide(t.Context(), q, plugin.Given{}); err != nil || plan.Service != "uk" {
		t.Errorf("got %+v, %v", plan, err)
	}
}
