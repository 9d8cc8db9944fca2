package decide

import (
	"errors"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// maxUnitSize is the most octets that may count as one message, more than any
// door lets in.
const maxUnitSize = 1 << 20

// The words of a plan, as the tags of plugin.Plan list them.
var (
	processings     = []plugin.Processing{plugin.Deliver, plugin.Reject, plugin.Discard}
	answers         = []plugin.AnswerMode{plugin.AnswerAccepted, plugin.AnswerDelivered}
	forkings        = []plugin.Forking{plugin.ForkParallel, plugin.ForkSequential}
	deviceModes     = []plugin.DeviceMode{plugin.AnyDevice, plugin.AllDevices}
	chargingModes   = []plugin.ChargingMode{plugin.ChargeNone, plugin.ChargeEvent}
	chargingMoments = []plugin.ChargingMoment{plugin.OnAcceptance, plugin.OnHandover, plugin.OnDelivery}
	unknownOutcomes = []plugin.UnknownOutcome{plugin.UnknownRetry, plugin.UnknownFallback, plugin.UnknownFail}
	refusals        = []message.Reason{
		message.Rejected, message.Blocked, message.Forbidden,
		message.UnknownRecipient, message.Declined, message.Unavailable, message.Incomplete,
	}
	alphabets       = []plugin.Alphabet{plugin.GSM7, plugin.GSM7National, plugin.Latin1, plugin.UCS2}
	transliterating = []plugin.Transliterate{plugin.TransliterateConfigured, plugin.TransliterateNever, plugin.TransliterateAlways}
	failures        = []message.Reason{
		message.Unavailable, message.NoAnswer, message.Busy, message.Declined, message.Gone,
		message.Undelivered, message.UnknownRecipient, message.Forbidden, message.UnsupportedType,
		message.TooLarge, message.LimitReached, message.Overloaded, message.Draining, message.Standby,
		message.StorageDown, message.Internal,
	}
)

// How the values of a plan are read.
var (
	names        = list(maxEntries, `["sip"]`, shortText)
	mimeTypes    = list(maxEntries, `["text/plain"]`, mimeType)
	failureList  = list(len(failures), `["unavailable"]`, oneOf(failures))
	alphabetList = list(len(alphabets), `["gsm7", "ucs2"]`, oneOf(alphabets))
	pauses       = list(plugin.MaxPauses, `["30s", "5m"]`, duration(plugin.MinPause, plugin.MaxStore))
)

// planAttributes are those of plugin.Plan, under their names in JSON.
var planAttributes = attributes[plugin.Plan]{
	"processing":       valueOf(func(p *plugin.Plan) *plugin.Processing { return &p.Processing }, oneOf(processings)),
	"reason":           valueOf(func(p *plugin.Plan) *message.Reason { return &p.Reason }, oneOf(refusals)),
	"transports":       valueOf(func(p *plugin.Plan) *[]string { return &p.Transports }, names),
	"mime":             tableOf(func(p *plugin.Plan) *map[string][]string { return &p.MIME }, mimeTypes),
	"charging":         documentOf(func(p *plugin.Plan) *plugin.PlanCharging { return &p.Charging }, chargingAttributes),
	"external_routing": valueOf(func(p *plugin.Plan) *bool { return &p.ExternalRouting }, boolean),
	"store":            valueOf(func(p *plugin.Plan) *time.Duration { return &p.Store }, duration(0, plugin.MaxStore)),
	"forking":          valueOf(func(p *plugin.Plan) *plugin.Forking { return &p.Forking }, oneOf(forkings)),
	"devices":          valueOf(func(p *plugin.Plan) *plugin.DeviceMode { return &p.Devices }, oneOf(deviceModes)),
	"answer":           valueOf(func(p *plugin.Plan) *plugin.AnswerMode { return &p.Answer }, oneOf(answers)),
	"answer_within":    valueOf(func(p *plugin.Plan) *time.Duration { return &p.Within }, duration(time.Millisecond, plugin.MaxWithin)),
	"retry":            documentOf(func(p *plugin.Plan) *plugin.PlanRetry { return &p.Retry }, retryAttributes),
	"fallback":         documentOf(func(p *plugin.Plan) *plugin.PlanFallback { return &p.Fallback }, fallbackAttributes),
	"rewrite":          documentOf(func(p *plugin.Plan) *plugin.PlanRewrite { return &p.Rewrite }, rewriteAttributes),
	"text":             documentOf(func(p *plugin.Plan) *plugin.PlanText { return &p.Text }, textAttributes),
	"labels":           tableOf(func(p *plugin.Plan) *map[string]string { return &p.Labels }, longText),
}

var chargingAttributes = attributes[plugin.PlanCharging]{
	"mode":        valueOf(func(c *plugin.PlanCharging) *plugin.ChargingMode { return &c.Mode }, oneOf(chargingModes)),
	"when":        valueOf(func(c *plugin.PlanCharging) *plugin.ChargingMoment { return &c.When }, oneOf(chargingMoments)),
	"account":     valueOf(func(c *plugin.PlanCharging) *string { return &c.Account }, longText),
	"destination": valueOf(func(c *plugin.PlanCharging) *string { return &c.Destination }, longText),
	"unit_size":   valueOf(func(c *plugin.PlanCharging) *int { return &c.UnitSize }, integer(0, maxUnitSize)),
	"units":       valueOf(func(c *plugin.PlanCharging) *int { return &c.Units }, integer(0, plugin.MaxUnits)),
}

var retryAttributes = attributes[plugin.PlanRetry]{
	"attempts": valueOf(func(r *plugin.PlanRetry) *int { return &r.Attempts }, integer(0, plugin.MaxAttempts)),
	"backoff":  valueOf(func(r *plugin.PlanRetry) *[]time.Duration { return &r.Backoff }, pauses),
	"reasons":  valueOf(func(r *plugin.PlanRetry) *[]message.Reason { return &r.Reasons }, failureList),
	"unknown":  valueOf(func(r *plugin.PlanRetry) *plugin.UnknownOutcome { return &r.Unknown }, oneOf(unknownOutcomes)),
}

var fallbackAttributes = attributes[plugin.PlanFallback]{
	"transports": valueOf(func(f *plugin.PlanFallback) *[]string { return &f.Transports }, names),
	"reasons":    valueOf(func(f *plugin.PlanFallback) *[]message.Reason { return &f.Reasons }, failureList),
	"sender":     valueOf(func(f *plugin.PlanFallback) *message.Address { return &f.Sender }, address),
}

var rewriteAttributes = attributes[plugin.PlanRewrite]{
	"sender":    valueOf(func(r *plugin.PlanRewrite) *message.Address { return &r.Sender }, address),
	"recipient": valueOf(func(r *plugin.PlanRewrite) *message.Address { return &r.Recipient }, address),
}

var textAttributes = attributes[plugin.PlanText]{
	"alphabets":     valueOf(func(t *plugin.PlanText) *[]plugin.Alphabet { return &t.Alphabets }, alphabetList),
	"transliterate": valueOf(func(t *plugin.PlanText) *plugin.Transliterate { return &t.Transliterate }, oneOf(transliterating)),
}

// decodePlan reads what a service's plan evaluated to, strictly: what the
// schema doesn't know is an error that names the attribute. What the policy
// left out has its default.
func decodePlan(v ast.Value) (plugin.Plan, error) {
	p := plugin.DefaultPlan()
	err := planAttributes.decode(v, &p)
	if err == nil {
		err = checkPlan(&p)
	}
	if err != nil {
		return plugin.Plan{}, at("plan", err)
	}
	return p, nil
}

// checkPlan wants the attributes to go together.
func checkPlan(p *plugin.Plan) error {
	switch {
	case p.Processing != plugin.Deliver:
		return nil
	case p.ExternalRouting && p.Charging.Mode == plugin.ChargeNone:
		return at("external_routing", errors.New("the authorisation says where it goes, hence it needs a charging.mode other than none"))
	case !p.ExternalRouting && len(p.Transports) == 0:
		return at("transports", errors.New("expected at least one, or external_routing"))
	case len(p.Retry.Backoff) == 0:
		return at("retry", at("backoff", errors.New("expected at least one pause")))
	}
	return nil
}

// mimeType reads a type without parameters and puts it into lower case, in
// which the question has it (RFC 2045 section 5.1: case doesn't matter).
func mimeType(v ast.Value) (string, error) {
	s, err := longText(v)
	if err != nil {
		return "", err
	}
	major, minor, _ := strings.Cut(s, "/")
	if major == "" || minor == "" || strings.ContainsAny(s, " ;*,") || strings.Contains(minor, "/") {
		return "", unexpected(`a MIME type without parameters, such as "text/plain"`, v)
	}
	return strings.ToLower(s), nil
}
