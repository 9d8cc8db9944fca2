//go:build process

package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// What an ESME submits: 5,000 PDUs, of which each tenth message takes several.
const (
	shortTexts = 3500
	longTexts  = 500
	longParts  = 3
	submits    = shortTexts + longTexts*longParts
	atOnce     = 50 // requests of the ESME that are unanswered
)

// TestKilledAmongSubmits kills the server without warning in the middle of 5,000
// submits from an ESME to a vendor, who reports what becomes of them. Each message
// whose submit_sm was answered ESME_ROK ends in one recorded outcome, is paid for
// once, and has come to the vendor, whole, at least once.
func TestKilledAmongSubmits(t *testing.T) {
	vendor := newVendor(t)
	g := startSMPP(t, freePort(t, "tcp"), vendor.address, "    dialect: {parts_wait: 2s}\n", "    window: 50\n    dialect: {text: {long: udh}}\n")
	esme := &submitter{t: t, door: g.door, half: make(chan struct{})}
	texts := esme.texts()
	esme.submitAll(texts, func() {
		g.kill()
		g.start()
	})
	g.eventually("every message has ended", func() bool { return g.metric("imgate_spool_messages") == 0 })

	outcomes := outcomesOf(t, g.server)
	paid := paidFor(t, g.server)
	repeated := 0
	for _, m := range texts {
		arrived := vendor.times(m.number, m.text)
		repeated += max(0, arrived-1)
		if arrived == 0 {
			t.Errorf("%s was accepted and hasn't come to the vendor", m.number)
		}
		for _, outcome := range outcomes[m.number] {
			charged := paid[outcome.ID.String()]
			if outcome.State != spool.StateDelivered || len(charged) != 1 || charged[0] != m.cost() {
				t.Errorf("%s: %+v, charged %v", m.number, outcome, charged)
			}
			delete(paid, outcome.ID.String())
		}
		if n := len(outcomes[m.number]); n == 0 || n > m.most() {
			t.Errorf("%s: %d outcomes of a message that was %d times submitted anew", m.number, n, m.unsure)
		}
		delete(outcomes, m.number)
	}
	if len(outcomes) > 0 || len(paid) > 0 {
		t.Errorf("%d records and %d CDRs are of messages that nobody submitted", len(outcomes), len(paid))
	}
	t.Logf("%d messages in %d submits; %d submitted anew because their answer was lost; the vendor got %d again",
		len(texts), submits, esme.unsure, repeated)
	// Those whose answers were lost on either side, and those of one batch of the
	// committer.
	if repeated > esme.unsure+200 {
		t.Errorf("%d messages came to the vendor again: more than were under way", repeated)
	}
}

// smsText is a text to a number of its own.
type smsText struct {
	number, text string
	parts        []text.Segment
	unsure       int // how often a part was sent anew, since nobody could say what became of it
}

// cost is what the message is charged, each SMS by itself.
func (m *smsText) cost() plugin.Money { return price * plugin.Money(len(m.parts)) }

// most is how many messages it may become: a part that comes again is known.
func (m *smsText) most() int {
	if len(m.parts) > 1 {
		return 1
	}
	return 1 + m.unsure
}

// submitter is an ESME that goes on submitting whatever happens.
type submitter struct {
	t    *testing.T
	door string
	half chan struct{} // closed when half of all is answered

	mu       sync.Mutex
	session  *wire.Session
	answered int
	unsure   int
}

func (e *submitter) texts() []*smsText {
	e.t.Helper()
	var all []*smsText
	for n := range shortTexts + longTexts {
		m := &smsText{number: fmt.Sprintf("4366%08d", n), text: fmt.Sprintf("message %d", n)}
		if n%8 == 7 {
			m.text += strings.Repeat(" and more", 40)
		}
		parts, err := text.Encode(m.text, text.Options{
			Alphabets: []plugin.Alphabet{plugin.GSM7}, Long: text.LongUDH, Reference: func() uint16 { return uint16(n) },
		})
		if err != nil {
			e.t.Fatal(err)
		}
		m.parts = parts
		all = append(all, m)
	}
	return all
}

// submitAll submits all, and calls then when half of it is answered. It returns
// when all is.
func (e *submitter) submitAll(texts []*smsText, then func()) {
	e.t.Helper()
	next := make(chan *smsText)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for m := range next {
				for i := range m.parts {
					m.unsure += e.submit(m.number, &m.parts[i])
				}
			}
		})
	}
	all.Go(func() {
		defer close(next)
		for _, m := range texts {
			next <- m
		}
	})
	select {
	case <-e.half:
	case <-time.After(time.Minute):
		e.t.Error("half of the submits aren't answered in a minute")
	}
	then()
	all.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.answered != submits {
		e.t.Fatalf("%d of %d submits are answered", e.answered, submits)
	}
	e.session.Close()
}

// submit submits a part until it is accepted, and tells how often nobody could say
// what became of it.
func (e *submitter) submit(number string, part *text.Segment) (unsure int) {
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	short := &wire.Short{
		Of:     pdu.SubmitSMID,
		Source: wire.Address{TON: 1, NPI: 1, Number: esmeNumber}, Destination: wire.Address{TON: 1, NPI: 1, Number: number},
		DataCoding: part.DataCoding, Text: part.Data,
	}
	if part.UDHI {
		short.ESMClass = 0x40
	}
	for session := e.bound(ctx); session != nil; session = e.bound(ctx) {
		response, err := session.Do(ctx, short, nil)
		switch {
		case err == nil && response.Status == wire.ROK:
			e.note(unsure)
			return unsure
		case err == nil:
			e.t.Errorf("%s is answered %s", number, wire.StatusName(response.Status))
			return unsure
		case errors.Is(err, wire.ErrNoAnswer):
			unsure++
		}
	}
	e.t.Errorf("%s is never accepted", number)
	return unsure
}

func (e *submitter) note(unsure int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unsure += unsure
	e.answered++
	if e.answered == submits/2 {
		close(e.half)
	}
}

// bound returns a session that is bound; it binds anew if that of before has ended.
// nil: there is none before ctx ends.
func (e *submitter) bound(ctx context.Context) *wire.Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) { // the server is down: another process
		if e.session != nil && !isClosed(e.session.Done()) {
			return e.session
		}
		if e.session = e.bind(ctx); e.session != nil {
			return e.session
		}
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// bind makes a session; nil if the server isn't there.
func (e *submitter) bind(ctx context.Context) *wire.Session {
	conn, err := net.Dial("tcp", e.door)
	if err != nil {
		return nil
	}
	session := wire.NewSession(conn, wire.Config{Limits: wire.Limits{Window: atOnce}}, deaf{})
	go session.Run(e.t.Context())
	response, err := session.Do(ctx, &wire.Bind{Mode: pdu.BindTransmitterID, SystemID: esmeID, Password: esmeSecret, InterfaceVersion: 0x34}, nil)
	if err != nil || response.Status != wire.ROK {
		session.Close()
		return nil
	}
	return session
}

// deaf is a wire.Handler of an ESME that only sends.
type deaf struct{}

func (deaf) Request(s *wire.Session, p wire.Packet) { s.Respond(p, wire.RInvBndSts, nil, nil) }
func (deaf) Closed(*wire.Session, error)            {}

// killedVendor is a SMSC of ours that outlives the server.
type killedVendor struct {
	address string

	mu    sync.Mutex
	texts map[string]map[string]int // how often each came, by number
}

// newVendor runs a SMSC that takes ten milliseconds for an answer, and reports soon
// after, until the test ends.
func newVendor(t *testing.T) *killedVendor {
	t.Helper()
	v := &killedVendor{texts: map[string]map[string]int{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	center, err := smsc.Listen(ctx, smsc.Config{
		Listen:   "127.0.0.1:0",
		Answer:   func(smsc.Submit) smsc.Answer { return smsc.Answer{After: 10 * time.Millisecond} },
		Receipts: 50 * time.Millisecond,
		Took:     v.take,
	})
	if err != nil {
		t.Fatal(err)
	}
	v.address = center.Addr().String()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		center.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return v
}

func (v *killedVendor) take(m smsc.Message) {
	v.mu.Lock()
	defer v.mu.Unlock()
	number := strings.TrimPrefix(m.To, "+")
	if v.texts[number] == nil {
		v.texts[number] = map[string]int{}
	}
	v.texts[number][string(m.Body)]++
}

// times is how often a text came, whole.
func (v *killedVendor) times(number, text string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.texts[number][text]
}

// outcomesOf lists the recorded messages by recipient.
func outcomesOf(t *testing.T, s *server) map[string][]spool.Summary {
	t.Helper()
	byNumber := map[string][]spool.Summary{}
	for line := range strings.Lines(s.imgate("message", "list", "--limit", "0", "--output", "json")) {
		var summary spool.Summary
		if err := json.Unmarshal([]byte(line), &summary); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		number := strings.TrimPrefix(summary.To.User, "+")
		byNumber[number] = append(byNumber[number], summary)
	}
	return byNumber
}

// paidFor lists what was charged by the message's ID.
func paidFor(t *testing.T, s *server) map[string][]plugin.Money {
	t.Helper()
	charged := map[string][]plugin.Money{}
	for _, cdr := range table(t, s.imgate("cdr", "export", "--output", "csv")) {
		amount, err := plugin.ParseMoney(cdr["amount"])
		if err != nil {
			t.Fatal(err)
		}
		if units, err := strconv.Atoi(cdr["units"]); err != nil || amount != price*plugin.Money(units) {
			t.Errorf("%s units cost %s", cdr["units"], amount)
		}
		charged[cdr["id"]] = append(charged[cdr["id"]], amount)
	}
	return charged
}
