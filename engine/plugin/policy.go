package plugin

import (
	"context"
	"fmt"
	"time"
)

// PolicySource is where policies come from: a directory, a bundle. The engine
// reads it, compiles what it read, and puts that in force; it keeps in storage
// what is in force, so that another node can go on with it.
type PolicySource interface {
	// Read returns the policies as they are in the source now, whole. It is
	// called when the node starts, on a reload, and after Watch; one call at a
	// time. An error: they can't be read, or somebody was changing them all the
	// while.
	Read(ctx context.Context) (Bundle, error)
	// Compile makes a policy of a bundle that Read returned, on this node or on
	// another, and tries it: all that can be known before the first message is
	// known afterwards. One call at a time, maybe beside Read and Watch. An error
	// is for the operator: every mistake with its place, one a line.
	Compile(ctx context.Context, b Bundle) (Policy, PolicyReport, error)
	// Watch returns nil when what Read returns may have changed since the last
	// Read began and seems to be complete, or why it can't watch. One call at a
	// time; it ends with ctx.
	Watch(ctx context.Context) error
	// MaxAge is for how long a bundle may stand in, at a start or a take-over,
	// for a source that can't be read or compiled: since it was last known to be
	// what the source held. 0: not at all.
	MaxAge() time.Duration
	// Close lets go. No other method runs or follows; policies that were
	// compiled go on.
	Close() error
}

// Bundle is everything that a policy is made of.
type Bundle struct {
	Revision string // a digest of Content: equal content, equal revision; at most MaxRevision octets, [0-9A-Za-z._-]
	Content  []byte // for Compile alone to read; at most MaxBundle octets
}

// Limits of a bundle.
const (
	MaxRevision = 64
	MaxBundle   = 64 << 20
)

// PolicyReport is what compiling found out.
type PolicyReport struct {
	Services []string // in the order of their names
	Tests    int      // that were run, and passed
	Coverage float64  // of the rules by the tests, 0 to 100
	Warnings []string // what will work, and not as it might be expected to; each with its place
}

// Policy decides. It is pure: the same question with the same answers of more
// gets the same plan from the same revision, and nothing else happens. It holds
// nothing but memory: nobody closes it.
type Policy interface {
	// Decide is called once for each message, from a few long-lived
	// goroutines. What it returns is complete: it begins with DefaultPlan. A
	// Failure with PolicyFailed, temporary: there is no verdict (undefined, an
	// error, the deadline passed, the plan is not one). UnknownRecipient: nothing
	// is said of such recipients.
	Decide(ctx context.Context, q Question, more Supply) (Plan, error)
}

// Always is a source that holds one policy, which is compiled into the program.
// revision names it; it changes when what the policy decides does.
func Always(revision string, p Policy) PolicySource { return always{revision, p} }

type always struct {
	revision string
	policy   Policy
}

func (a always) Read(context.Context) (Bundle, error) { return Bundle{Revision: a.revision}, nil }

func (a always) Compile(_ context.Context, b Bundle) (Policy, PolicyReport, error) {
	if b.Revision != a.revision {
		return nil, PolicyReport{}, fmt.Errorf("this program has revision %q alone, and not %q", a.revision, b.Revision)
	}
	return a.policy, PolicyReport{Coverage: 100}, nil
}

func (a always) Watch(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (a always) MaxAge() time.Duration { return 0 }

func (a always) Close() error { return nil }

// Supply tells a policy what is not in every question, since it costs too much
// or is nobody's business. Its methods are called during Decide alone.
type Supply interface {
	// Text is the message's text, its first MaxQuestionText octets; empty if it
	// has none that can be read. For services that ask for it.
	Text() string
	// Count is how many messages were counted by a limit in the window that is
	// open now, without this one.
	Count(l Limit) int
}

// Given is a Supply that is known beforehand: for dry runs and replay.
type Given struct {
	Words    string
	Counters map[string]int // by the limit's name
}

// Text is Supply.
func (g Given) Text() string { return g.Words }

// Count is Supply.
func (g Given) Count(l Limit) int { return g.Counters[l.Name] }

// MaxQuestionText is how much of a message's text a policy may see, in octets.
const MaxQuestionText = 16 << 10

// Question is all that a policy may know: the document "input" in Rego. The
// JSON names are what policies read.
type Question struct {
	Message   QuestionMessage   `json:"message" doc:"the message"`
	Sender    QuestionSender    `json:"sender" doc:"who sends it, as authenticated"`
	Recipient QuestionRecipient `json:"recipient" doc:"who it is for"`
	Transport string            `json:"transport" doc:"the instance through which it came in"`
	Protocol  string            `json:"protocol" doc:"what is spoken there: sip, smpp, …"`
	Peer      string            `json:"peer" doc:"who handed it over: an address or a system_id"`
	Time      time.Time         `json:"time" doc:"when it was received, UTC, RFC 3339"`
	Clock     Clock             `json:"clock" doc:"the same on the operator's clock, see zone in the configuration"`
	// Counters are filled in by Decide, from its Supply.
	Counters map[string]int `json:"counters" doc:"by the name of each limit that the service declares: how many messages it has counted in the window that is open, without this one"`
}

// QuestionMessage is what a policy may know of the message itself.
type QuestionMessage struct {
	ID       string `json:"id" doc:"the message's id"`
	Type     string `json:"type" doc:"MIME type without parameters, in lower case"`
	Class    string `json:"class" doc:"what it is for the gateway" enum:"text,composing,notification"`
	Inner    string `json:"inner" doc:"MIME type of what a message/cpim holds, without parameters, in lower case; empty: it isn't one"`
	Size     int    `json:"size" doc:"octets of the body"`
	Segments int    `json:"segments" doc:"how many SMS its text would take (3GPP TS 23.038, 23.040); 0: it has no text that can be read"`
	Expires  *int   `json:"expires,omitempty" doc:"seconds that the sender wants it kept; absent: it doesn't say"`
	Missing  int    `json:"missing" doc:"how many of the parts in which it came haven't come in time: it is incomplete"`
	// Text is filled in by Decide, from its Supply.
	Text *string `json:"text,omitempty" doc:"the text, its first 16 KiB; there only for a service that asks for it"`
}

// QuestionSender is the authenticated sender.
type QuestionSender struct {
	Account    string            `json:"account" doc:"the account's id"`
	Address    string            `json:"address" doc:"the address that it sends from: user@domain"`
	User       string            `json:"user" doc:"the part before the @"`
	Domain     string            `json:"domain" doc:"the part behind the @, in lower case"`
	Number     string            `json:"number" doc:"the account's telephone number: the first of its identities without a domain; empty: it has none"`
	Local      bool              `json:"local" doc:"whether one of our accounts sends it; else its transport vouches for the sender under its own name, as one to a vendor does for mobile phones"`
	Attributes map[string]string `json:"attributes" doc:"what the accounts plugin says of the account"`
}

// QuestionRecipient is the recipient: the Request-URI, or the destination
// address of SMPP.
type QuestionRecipient struct {
	Address    string            `json:"address" doc:"user@domain, or a number"`
	User       string            `json:"user" doc:"the part before the @, or the number"`
	Domain     string            `json:"domain" doc:"the part behind the @, in lower case; empty for a number"`
	Local      bool              `json:"local" doc:"whether one of our accounts owns the address"`
	Account    string            `json:"account" doc:"that account's id; empty if there is none"`
	Attributes map[string]string `json:"attributes" doc:"what the accounts plugin says of that account"`
	Registered bool              `json:"registered" doc:"whether it can be reached now"`
	Devices    int               `json:"devices" doc:"how many devices are registered"`
}

// Clock is a moment as the operator's clock shows it.
type Clock struct {
	Zone    string `json:"zone" doc:"the operator's time zone: Europe/Vienna"`
	Date    string `json:"date" doc:"2026-12-31"`
	Time    string `json:"time" doc:"23:59:59; compares as text"`
	Weekday string `json:"weekday" doc:"the day of the week" enum:"monday,tuesday,wednesday,thursday,friday,saturday,sunday"`
	Hour    int    `json:"hour" doc:"0 to 23"`
	Minute  int    `json:"minute" doc:"0 to 59"`
}

var weekdays = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// ClockAt shows a moment in a zone.
func ClockAt(t time.Time, zone *time.Location) Clock {
	t = t.In(zone)
	return Clock{
		Zone: zone.String(), Date: t.Format(time.DateOnly), Time: t.Format(time.TimeOnly),
		Weekday: weekdays[t.Weekday()], Hour: t.Hour(), Minute: t.Minute(),
	}
}
