package rego

import (
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
	processings   = []plugin.Processing{plugin.Deliver, plugin.Reject, plugin.Discard}
	answers       = []plugin.AnswerMode{plugin.AnswerAccepted, plugin.AnswerDelivered}
	chargingModes = []plugin.ChargingMode{plugin.ChargeNone, plugin.ChargeEvent}
	reasons       = []message.Reason{
		message.Rejected, message.Blocked, message.Forbidden,
		message.UnknownRecipient, message.Declined, message.Unavailable,
	}
)

// planAttributes are those of plugin.Plan, under their names in JSON.
var planAttributes = attributes[plugin.Plan]{
	"processing": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Processing, err = oneOf(v, processings)
		return err
	},
	"reason": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Reason, err = oneOf(v, reasons)
		return err
	},
	"transports": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Transports, err = list(v, maxEntries, shortText)
		return err
	},
	"mime": func(p *plugin.Plan, v ast.Value) (err error) {
		p.MIME, err = table(v, mimeTypes)
		return err
	},
	"charging": func(p *plugin.Plan, v ast.Value) error {
		return chargingAttributes.decode(v, &p.Charging)
	},
	"store": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Store, err = duration(v, time.Second, plugin.MaxStore)
		return err
	},
	"answer": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Answer, err = oneOf(v, answers)
		return err
	},
	"answer_within": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Within, err = duration(v, time.Millisecond, plugin.MaxWithin)
		return err
	},
	"retry": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Retry, err = list(v, plugin.MaxRetries, pause)
		return err
	},
	"labels": func(p *plugin.Plan, v ast.Value) (err error) {
		p.Labels, err = table(v, longText)
		return err
	},
}

var chargingAttributes = attributes[plugin.PlanCharging]{
	"mode": func(c *plugin.PlanCharging, v ast.Value) (err error) {
		c.Mode, err = oneOf(v, chargingModes)
		return err
	},
	"account": func(c *plugin.PlanCharging, v ast.Value) (err error) {
		c.Account, err = longText(v)
		return err
	},
	"destination": func(c *plugin.PlanCharging, v ast.Value) (err error) {
		c.Destination, err = longText(v)
		return err
	},
	"unit_size": func(c *plugin.PlanCharging, v ast.Value) (err error) {
		c.UnitSize, err = integer(v, 0, maxUnitSize)
		return err
	},
}

// decodePlan reads what a service's plan evaluated to, strictly: what the
// schema doesn't know is an error that names the attribute. What the policy
// left out stays zero.
func decodePlan(v ast.Value) (plugin.Plan, error) {
	var p plugin.Plan
	if err := planAttributes.decode(v, &p); err != nil {
		return plugin.Plan{}, at("plan", err)
	}
	return p, nil
}

func pause(v ast.Value) (time.Duration, error) {
	return duration(v, plugin.MinRetry, plugin.MaxStore)
}

func mimeTypes(v ast.Value) ([]string, error) { return list(v, maxEntries, mimeType) }

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
