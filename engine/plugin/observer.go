package plugin

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Observer watches: what was said to whom, and how far each message has come.
// Its methods are called in the middle of everything, from any goroutine: they
// must not block, and what they can't keep they drop and count.
type Observer interface {
	// Packet is called for each unit of a protocol that was received or sent.
	// p and what it points to are the caller's: valid during the call only.
	Packet(p *Packet)
	// Step is called when a message has come a step further. s is valid during
	// the call only.
	Step(s *Step)
	// Close lets go. No other method runs or follows.
	Close() error
}

// Packet is one request, response or PDU as it travelled.
type Packet struct {
	Time      time.Time
	Transport string // the instance
	Protocol  string // "sip", "smpp"
	Network   string // "udp", "tcp", "tls", "ws", "wss"
	Sent      bool   // by us; else received
	Local     netip.AddrPort
	Remote    netip.AddrPort
	// Call is what all packets of one exchange share: SIP's Call-ID. Steps name
	// it too, so that a message's packets can be found.
	Call string
	// Title says in a few words what it is, without what a person wrote:
	// Title[0] "MESSAGE" or "202", Title[1] the Request-URI or "Accepted".
	Title [2]string
	Data  []byte // all of it
}

// StepName says what has happened to a message.
type StepName string

// The steps, in their usual order. A message that is refused has no more after
// StepRefused; delivered, handed-over, failed and discarded are ends as well.
const (
	StepReceived    StepName = "received"    // a door has handed it in
	StepDecided     StepName = "decided"     // the policy has a plan for it
	StepAuthorized  StepName = "authorized"  // charging has reserved what it costs
	StepRefused     StepName = "refused"     // it isn't ours: Reason says why
	StepStored      StepName = "stored"      // it is on disk, and ours
	StepAttempted   StepName = "attempted"   // one attempt has ended; Reason says why it failed
	StepWaiting     StepName = "waiting"     // its recipient isn't there, or a pause is due
	StepDelivered   StepName = "delivered"   // a device has it
	StepHandedOver  StepName = "handed-over" // the next hop is responsible and will report
	StepFailed      StepName = "failed"      // it will never be delivered: Reason says why
	StepDiscarded   StepName = "discarded"   // the policy wanted that
	StepQuarantined StepName = "quarantined" // set aside for the operator
	StepRequeued    StepName = "requeued"    // an operator has sent it on its way again
)

// StepNames lists every step.
var StepNames = [...]StepName{
	StepReceived, StepDecided, StepAuthorized, StepRefused, StepStored, StepAttempted, StepWaiting,
	StepDelivered, StepHandedOver, StepFailed, StepDiscarded, StepQuarantined, StepRequeued,
}

// Step is something that happened to a message.
type Step struct {
	Name    StepName
	Message *message.Message // never nil; of one that was read back only what the spool's index has: no body
	Began   time.Time
	Ended   time.Time // equal to Began if it took no time

	Call      string         // received: Arrival.Call; attempted: Route.Reference; else empty
	Transport string         // received, attempted, delivered: the instance
	Peer      string         // attempted: the contact or next hop
	Service   string         // decided: the policy's service
	Reason    message.Reason // why not
	Attempt   int            // attempted: the first is 1
}

// Observers passes on to those who watch just now. The zero value, and nil,
// have nobody. Its methods may be called from any goroutine. What they are
// given may be on the caller's stack.
type Observers struct {
	list    atomic.Pointer[[]Observer]
	packets sync.Pool // of *Packet
	steps   sync.Pool // of *Step
}

// Use replaces those who watch. Those who watched before may still be called
// for a moment.
func (o *Observers) Use(list []Observer) { o.list.Store(&list) }

// Watched tells whether anybody watches: if not, nothing needs to be prepared.
func (o *Observers) Watched() bool { return len(o.current()) > 0 }

// Packet passes a packet on.
func (o *Observers) Packet(p *Packet) {
	list := o.current()
	if len(list) == 0 {
		return
	}
	passed := borrow[Packet](&o.packets)
	*passed = *p
	for _, observer := range list {
		observer.Packet(passed)
	}
	*passed = Packet{} // holds on to nothing
	o.packets.Put(passed)
}

// Step passes a step on.
func (o *Observers) Step(s *Step) {
	list := o.current()
	if len(list) == 0 {
		return
	}
	passed := borrow[Step](&o.steps)
	*passed = *s
	for _, observer := range list {
		observer.Step(passed)
	}
	*passed = Step{}
	o.steps.Put(passed)
}

func borrow[T any](pool *sync.Pool) *T {
	if p, ok := pool.Get().(*T); ok {
		return p
	}
	return new(T)
}

func (o *Observers) current() []Observer {
	if o == nil {
		return nil
	}
	list := o.list.Load()
	if list == nil {
		return nil
	}
	return *list
}
