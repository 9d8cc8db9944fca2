package plugin

import (
	"cmp"
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Policy decides. It is pure: the same question to the same revision gets the
// same plan, and nothing else happens.
type Policy interface {
	// Decide is called once for each message, from a few long-lived
	// goroutines. A Failure with PolicyFailed, temporary: there is no verdict
	// (undefined, an error, the deadline passed, the plan is not one).
	// UnknownRecipient: nothing is said of such recipients.
	Decide(ctx context.Context, q Question) (Plan, error)
	// Close lets go. No other method runs or follows.
	Close() error
}

// Question is all that a policy may know: the document "input" in Rego. The
// JSON names are what policies read.
type Question struct {
	Message   QuestionMessage   `json:"message" doc:"the message"`
	Sender    QuestionSender    `json:"sender" doc:"who sends it, as authenticated"`
	Recipient QuestionRecipient `json:"recipient" doc:"who it is for"`
	Transport string            `json:"transport" doc:"the instance through which it came in"`
	Protocol  string            `json:"protocol" doc:"the plugin of that instance: sip, smpp, …"`
	Peer      string            `json:"peer" doc:"who handed it over: an address or a system_id"`
	Time      time.Time         `json:"time" doc:"when it was received, UTC, RFC 3339"`
}

// QuestionMessage is what a policy may know of the message itself. The text is
// not part of it.
type QuestionMessage struct {
	ID      string `json:"id" doc:"the message's id"`
	Type    string `json:"type" doc:"MIME type without parameters, in lower case"`
	Class   string `json:"class" doc:"what it is for the gateway" enum:"text,composing"`
	Size    int    `json:"size" doc:"octets of the body"`
	Expires *int   `json:"expires,omitempty" doc:"seconds that the sender wants it kept; absent: it doesn't say"`
}

// QuestionSender is the authenticated sender.
type QuestionSender struct {
	Account    string            `json:"account" doc:"the account's id"`
	Address    string            `json:"address" doc:"the address that it sends from: user@domain"`
	User       string            `json:"user" doc:"the part before the @"`
	Domain     string            `json:"domain" doc:"the part behind the @, in lower case"`
	Attributes map[string]string `json:"attributes" doc:"what the accounts plugin says of the account"`
}

// QuestionRecipient is the recipient: the Request-URI, or the destination
// address of SMPP.
type QuestionRecipient struct {
	Address    string `json:"address" doc:"user@domain, or a number"`
	User       string `json:"user" doc:"the part before the @, or the number"`
	Domain     string `json:"domain" doc:"the part behind the @, in lower case; empty for a number"`
	Local      bool   `json:"local" doc:"whether one of our accounts owns the address"`
	Registered bool   `json:"registered" doc:"whether it can be reached now"`
	Devices    int    `json:"devices" doc:"how many devices are registered"`
}

// Plan is the verdict: what happens to a message, now and later. A policy
// leaves out what it doesn't want to decide; WithDefaults fills that in.
type Plan struct {
	Service  string `json:"-"` // which service decided
	Revision string `json:"-"` // of the policies

	Processing Processing          `json:"processing" doc:"what happens to the message" enum:"deliver,reject,discard"`
	Reason     message.Reason      `json:"reason" doc:"with reject: what the sender is told" enum:"rejected,blocked,forbidden,unknown-recipient,declined,unavailable"`
	Transports []string            `json:"transports" doc:"the instances or plugins to deliver through, in order of preference"`
	MIME       map[string][]string `json:"mime" doc:"by plugin (sip, smpp, …): the MIME types that may go over it; a plugin that isn't named takes everything"`
	Charging   PlanCharging        `json:"charging" doc:"who pays, and for what"`
	Store      time.Duration       `json:"store" doc:"how long a message waits at most for a recipient who can't be reached"`
	Answer     AnswerMode          `json:"answer" doc:"what the sender is told: accepted, or the first outcome" enum:"accepted,delivered"`
	Within     time.Duration       `json:"answer_within" doc:"with delivered: how long to wait for the outcome, at most 15s"`
	Retry      []time.Duration     `json:"retry" doc:"the pauses after each failed attempt while the recipient is registered; the last one repeats"`
	Labels     map[string]string   `json:"labels" doc:"kept with the message, for reports"`
}

// PlanCharging says who pays.
type PlanCharging struct {
	Mode        ChargingMode `json:"mode" doc:"none, or once for each message that is delivered" enum:"none,event"`
	Account     string       `json:"account" doc:"the account that pays; default: the sender's"`
	Destination string       `json:"destination" doc:"what it is charged as, for the tariff"`
	UnitSize    int          `json:"unit_size" doc:"octets of the body that count as one message; 0: it is one whatever its length"`
}

// Processing is what a policy decides first.
type Processing string

// What can happen to a message.
const (
	Deliver Processing = "deliver"
	Reject  Processing = "reject"
	Discard Processing = "discard" // accepted and thrown away, in silence
)

// ChargingMode says what is paid for.
type ChargingMode string

// The ways of charging.
const (
	ChargeNone  ChargingMode = "none"
	ChargeEvent ChargingMode = "event"
)

// AnswerMode says what the sender waits for.
type AnswerMode string

// The answers.
const (
	AnswerAccepted  AnswerMode = "accepted"
	AnswerDelivered AnswerMode = "delivered"
)

// The values that a plan has where the policy says nothing, and their limits.
const (
	DefaultStore  = time.Hour
	MaxStore      = 30 * 24 * time.Hour
	DefaultWithin = 3 * time.Second
	MaxWithin     = 15 * time.Second
	MinRetry      = time.Second
	MaxRetries    = 32
)

// DefaultRetry are the pauses between attempts at a registered recipient.
var DefaultRetry = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute}

// WithDefaults fills in what the policy left out. The defaults are: deliver,
// over SIP, any type, not charged, kept one hour, the sender waits three
// seconds for the first outcome.
func (p Plan) WithDefaults() Plan {
	p.Processing = cmp.Or(p.Processing, Deliver)
	p.Reason = cmp.Or(p.Reason, message.Rejected)
	p.Charging.Mode = cmp.Or(p.Charging.Mode, ChargeNone)
	p.Store = cmp.Or(p.Store, DefaultStore)
	p.Answer = cmp.Or(p.Answer, AnswerDelivered)
	p.Within = cmp.Or(p.Within, DefaultWithin)
	if len(p.Transports) == 0 {
		p.Transports = []string{"sip"}
	}
	if len(p.Retry) == 0 {
		p.Retry = DefaultRetry
	}
	return p
}
