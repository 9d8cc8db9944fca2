package plugin

import (
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Plan is the verdict: what happens to a message, now and later. It is stored
// with the message, so that nothing is decided twice. The tags are what the
// operator's page and the schema are made of: doc is the meaning, enum the words
// there are, default what it is where the policy says nothing, example a value in
// Rego.
type Plan struct {
	Service  string `json:"-"` // which service decided
	Revision string `json:"-"` // of the policies

	Processing      Processing          `json:"processing" doc:"what happens to the message; discard accepts it and throws it away" enum:"deliver,reject,discard" default:"\"deliver\"" example:"\"reject\""`
	Reason          message.Reason      `json:"reason" doc:"with reject: what the sender is told" enum:"rejected,blocked,forbidden,unknown-recipient,declined,unavailable,incomplete" default:"\"rejected\"" example:"\"blocked\""`
	Transports      []string            `json:"transports" doc:"the instances or plugins to deliver through, in order of preference" default:"[\"sip\"]" example:"[\"smpp\", \"sip\"]"`
	MIME            map[string][]string `json:"mime" doc:"by protocol (sip, smpp, …): the MIME types that may go over the instances that speak it; one that isn't named takes everything" default:"{}" example:"{\"smpp\": [\"text/plain\"]}"`
	Charging        PlanCharging        `json:"charging" doc:"who pays, for what, and when"`
	ExternalRouting bool                `json:"external_routing" doc:"whether the authorisation says where it goes, instead of transports; needs a charging.mode other than none" default:"false" example:"true"`
	Store           time.Duration       `json:"store" doc:"how long a message waits at most for a recipient who can't be reached, 0s to 720h; 0s: it goes at once or not at all" default:"\"1h\"" example:"\"72h\""`
	Forking         Forking             `json:"forking" doc:"in what order the recipient's devices are tried: all at once, or by their preference q, those with the greatest first and the next where none of these has taken it" enum:"parallel,sequential" default:"\"parallel\"" example:"\"sequential\""`
	Devices         DeviceMode          `json:"devices" doc:"who is to have it: any of the recipient's devices, or all, each once; then those that are offline get a copy when they come back, within store" enum:"any,all" default:"\"any\"" example:"\"all\""`
	Answer          AnswerMode          `json:"answer" doc:"what the sender is told: that the message is accepted, or the first outcome" enum:"accepted,delivered" default:"\"delivered\"" example:"\"accepted\""`
	Within          time.Duration       `json:"answer_within" doc:"with delivered: how long to wait for the outcome, 1ms to 15s" default:"\"3s\"" example:"\"10s\""`
	Retry           PlanRetry           `json:"retry" doc:"what follows an attempt that failed while the recipient can be reached"`
	Fallback        PlanFallback        `json:"fallback" doc:"another way, where all of transports have failed for good"`
	Rewrite         PlanRewrite         `json:"rewrite" doc:"other addresses than those that the message came with"`
	Text            PlanText            `json:"text" doc:"how its text is written as SMS"`
	Labels          map[string]string   `json:"labels" doc:"text that is kept with the message, for reports" default:"{}" example:"{\"campaign\": \"spring\"}"`

	// Limits are those that the service declares, for this message. The engine
	// counts it with each of them, or refuses it.
	Limits []Limit `json:"-"`
}

// PlanCharging says who pays.
type PlanCharging struct {
	Mode        ChargingMode   `json:"mode" doc:"none, or once for each message" enum:"none,event" default:"\"none\"" example:"\"event\""`
	When        ChargingMoment `json:"when" doc:"with event: when it is paid. acceptance: when we have the message, whatever becomes of it; handover: when a device or the next hop has taken it; delivery: when it has arrived, by a final answer or a delivery receipt" enum:"acceptance,handover,delivery" default:"\"handover\"" example:"\"delivery\""`
	Account     string         `json:"account" doc:"the account that pays; empty: the sender's" default:"\"\"" example:"\"wholesale\""`
	Destination string         `json:"destination" doc:"what it is charged as, for the tariff" default:"\"\"" example:"\"sms\""`
	UnitSize    int            `json:"unit_size" doc:"octets of the body that count as one message, the last part too; 0: it is one whatever its length" default:"0" example:"140"`
	Units       int            `json:"units" doc:"how many messages it counts as, 1 to 1000, in place of unit_size; 0: that says" default:"0" example:"input.message.segments"`
}

// PlanRetry says what follows an attempt that failed.
type PlanRetry struct {
	Attempts int              `json:"attempts" doc:"how many attempts at most while the recipient can be reached, 1 to 1000; 0: as many as the message's life allows" default:"0" example:"5"`
	Backoff  []time.Duration  `json:"backoff" doc:"the pauses after each, at most 32 of 1s to 720h; the last one repeats" default:"[\"5s\", \"15s\", \"1m\", \"5m\", \"15m\"]" example:"[\"10s\", \"1m\"]"`
	Reasons  []message.Reason `json:"reasons" doc:"the reasons that are worth another attempt, whatever the peer says; empty: those that the peer calls temporary" enum:"unavailable,no-answer,busy,declined,gone,undelivered,unknown-recipient,forbidden,unsupported-type,too-large,limit-reached,overloaded,draining,standby,storage-down,internal" default:"[]" example:"[\"unavailable\", \"busy\"]"`
	Unknown  UnknownOutcome   `json:"unknown" doc:"what follows an attempt that wasn't answered, so that the device may have the message: another attempt (it may arrive twice; of an SMS in several parts those that were taken aren't sent again), the fallback, or the end (it may not arrive)" enum:"retry,fallback,fail" default:"\"retry\"" example:"\"fail\""`
}

// PlanFallback is another way for what failed for good, or as often as it may.
type PlanFallback struct {
	Transports []string         `json:"transports" doc:"the instances or plugins to deliver through then, in order of preference; attempts are counted anew; empty: there is no other way" default:"[]" example:"[\"backup\"]"`
	Reasons    []message.Reason `json:"reasons" doc:"the reasons for which it is taken, that of a delivery report too; empty: all" enum:"unavailable,no-answer,busy,declined,gone,undelivered,unknown-recipient,forbidden,unsupported-type,too-large,limit-reached,overloaded,draining,standby,storage-down,internal" default:"[]" example:"[\"unavailable\", \"undelivered\"]"`
	Sender     message.Address  `json:"sender" doc:"the address that it is sent from then; empty: as before" default:"\"\"" example:"\"100@sms.example.com\""`
}

// PlanRewrite replaces addresses. A zero address leaves the message's own.
type PlanRewrite struct {
	Sender    message.Address `json:"sender" doc:"the address that the recipient sees; the sender's account pays all the same" default:"\"\"" example:"\"100@sms.example.com\""`
	Recipient message.Address `json:"recipient" doc:"who it is delivered to, and charged for; it is not matched again" default:"\"\"" example:"\"+447700900000\""`
}

// PlanText says how a text is written for phones, which have several alphabets
// (3GPP TS 23.038).
type PlanText struct {
	Alphabets     []Alphabet    `json:"alphabets" doc:"the alphabets that it may be written in: the first one that has all its characters is taken; empty: as the instance is configured" enum:"gsm7,gsm7-national,latin1,ucs2" default:"[]" example:"[\"gsm7\", \"ucs2\"]"`
	Transliterate Transliterate `json:"transliterate" doc:"whether characters that an alphabet lacks may be replaced by like ones, so that it can be taken: č by c; configured: as the instance is" enum:"configured,never,always" default:"\"configured\"" example:"\"always\""`
}

// Alphabet is one in which an SMS may be written.
type Alphabet string

// The alphabets, those with the smallest characters first.
const (
	GSM7         Alphabet = "gsm7"          // the default alphabet and its extension table
	GSM7National Alphabet = "gsm7-national" // with a national language's tables
	Latin1       Alphabet = "latin1"        // ISO 8859-1
	UCS2         Alphabet = "ucs2"          // UTF-16, which has all characters
)

// Transliterate says whether characters may be replaced by like ones.
type Transliterate string

// The words for that.
const (
	TransliterateConfigured Transliterate = "configured"
	TransliterateNever      Transliterate = "never"
	TransliterateAlways     Transliterate = "always"
)

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

// ChargingMoment says when it is paid.
type ChargingMoment string

// The moments.
const (
	OnAcceptance ChargingMoment = "acceptance"
	OnHandover   ChargingMoment = "handover"
	OnDelivery   ChargingMoment = "delivery"
)

// AnswerMode says what the sender waits for.
type AnswerMode string

// The answers.
const (
	AnswerAccepted  AnswerMode = "accepted"
	AnswerDelivered AnswerMode = "delivered"
)

// Forking says in what order devices are tried (RFC 3261 §16.6).
type Forking string

// The orders.
const (
	ForkParallel   Forking = "parallel"
	ForkSequential Forking = "sequential"
)

// DeviceMode says which of a recipient's devices are to have a message.
type DeviceMode string

// The modes.
const (
	AnyDevice  DeviceMode = "any"
	AllDevices DeviceMode = "all"
)

// UnknownOutcome says what follows an attempt that wasn't answered.
type UnknownOutcome string

// What may follow.
const (
	UnknownRetry    UnknownOutcome = "retry"
	UnknownFallback UnknownOutcome = "fallback" // and fail, if there is none
	UnknownFail     UnknownOutcome = "fail"
)

// Limit is a rate limit of a service's, for one key: at most Count messages
// with it are accepted in a window, which begins with the first one.
type Limit struct {
	Name  string        // of the limit, at most 64 octets
	Key   string        // whose messages are counted together: the service's name, the limit's, and the values of what it counts by; at most 1,024 octets
	Count int           // 0: it is counted and never refused
	Per   time.Duration // of a window: MinWindow to MaxWindow
}

// The limits of a plan. See DefaultPlan for what it has where a policy says
// nothing.
const (
	MaxStore    = 30 * 24 * time.Hour
	MaxWithin   = 15 * time.Second
	MinPause    = time.Second
	MaxPauses   = 32
	MaxAttempts = 1000
	MaxUnits    = 1000
	MaxLimits   = 8 // of a service
	MinWindow   = time.Second
	MaxWindow   = 31 * 24 * time.Hour
)

// DurationText is a duration as plans and the configuration have it: "1h" and not
// "1h0m0s".
func DurationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// DefaultWithin is how long a sender waits for the first outcome.
const DefaultWithin = 3 * time.Second

var defaultBackoff = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute}

// DefaultPlan is what a plan says where the policy says nothing: deliver, over
// SIP, any type, not charged, kept one hour, the sender waits three seconds for
// the first outcome. Plans share its lists: nobody may change them.
func DefaultPlan() Plan {
	return Plan{
		Processing: Deliver,
		Reason:     message.Rejected,
		Transports: defaultTransports,
		Charging:   PlanCharging{Mode: ChargeNone, When: OnHandover},
		Store:      time.Hour,
		Forking:    ForkParallel,
		Devices:    AnyDevice,
		Answer:     AnswerDelivered,
		Within:     DefaultWithin,
		Retry:      PlanRetry{Backoff: defaultBackoff, Unknown: UnknownRetry},
		Text:       PlanText{Transliterate: TransliterateConfigured},
	}
}

var defaultTransports = []string{"sip"}
