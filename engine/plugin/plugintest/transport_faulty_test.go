package plugintest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func TestTransportMatrix(t *testing.T) {
	t.Parallel()
	prove(t, transportCases(), doors(nil), slices.Concat(serveFaults(), gateFaults(), arrivalFaults(), sendFaults()))
}

// TestSendingTransport: also one through which nothing comes in is told from one
// that is broken.
func TestSendingTransport(t *testing.T) {
	sending := func(harness func(T) TransportHarness) func(T) TransportHarness {
		return func(t T) TransportHarness {
			h := harness(t)
			h.Say, h.Register = nil, nil
			return h
		}
	}
	SendingTransport(t, sending(doors(nil)))
	for _, f := range sendFaults() {
		for _, c := range sendCases() {
			if c.Name == f.breaks && len(attempt(t, c, sending(f.harness))) == 0 {
				t.Errorf("plugin %q passes case %q", f.name, c.Name)
			}
		}
	}
}

func TestTrustingTransport(t *testing.T) { Transport(t, trusting) }

func TestTrustingTransportMustNotAsk(t *testing.T) {
	asks := func(t T) TransportHarness {
		h := trusting(t)
		open := h.Open
		h.Open = func(t T) plugin.Transport {
			d := open(t).(*postDoor)
			login := d.login
			d.login = func(gate plugin.Gate, ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
				_, _ = gate.Authenticate(ctx, c)
				return login(gate, ctx, c)
			}
			return d
		}
		return h
	}
	const name = "who isn't authenticated gets nothing in"
	for _, c := range transportCases() {
		if failed := len(attempt(t, c, asks)) > 0; failed != (c.Name == name) {
			t.Errorf("case %q: failed=%t", c.Name, failed)
		}
	}
}

func doorFault(name, breaks string, breakIt func(*postDoor)) fault[TransportHarness] {
	return fault[TransportHarness]{name, breaks, doors(breakIt)}
}

func serveFaults() []fault[TransportHarness] {
	const (
		ready    = "Ready is called once, when the door is open"
		letsGo   = "Serve returns nil soon after its context ends, and lets go"
		unserved = "one that is opened and never served holds nothing"
		waiting  = "what waits for acceptance neither holds up the end of Serve nor is taken by it"
	)
	return []fault[TransportHarness]{
		doorFault("is ready before it is open", ready, func(d *postDoor) { d.serve = readyTooEarly }),
		doorFault("is ready twice", ready, func(d *postDoor) { d.serve = readyTwice }),
		doorFault("returns the end of its context", letsGo, func(d *postDoor) { d.serve = returnContext }),
		doorFault("keeps its address", letsGo, func(d *postDoor) { d.serve = keepOpen }),
		doorFault("goes on behind Serve's back", letsGo, func(d *postDoor) { d.serve = goOn }),
		doorFault("takes its address when it is opened", unserved, takeEarly),
		doorFault("waits for acceptance before it ends", waiting, func(d *postDoor) { d.answer = waitBeyondEnd }),
		doorFault("says taken when it ends", waiting, func(d *postDoor) { d.answer = takenAtEnd }),
	}
}

// readyTooEarly opens only when somebody has come in vain.
func readyTooEarly(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	select {
	case <-d.post.inVain:
		return soundServe(d, ctx, readied{gate})
	case <-ctx.Done():
		return nil
	}
}

// readied is a gate that has been told.
type readied struct{ plugin.Gate }

func (readied) Ready() {}

func readyTwice(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	return soundServe(d, ctx, gate)
}

func returnContext(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	if err := soundServe(d, ctx, gate); err != nil {
		return err
	}
	return ctx.Err()
}

func keepOpen(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	if err := d.open(); err != nil {
		return err
	}
	gate.Ready()
	d.work(ctx, gate)
	d.tasks.Wait()
	return nil
}

// goOn answers for a while after it has returned.
func goOn(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	if err := d.open(); err != nil {
		return err
	}
	gate.Ready()
	d.work(ctx, gate)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*moment)
	go func() {
		defer cancel()
		d.work(ctx, gate)
		d.close()
	}()
	return nil
}

// takeEarly takes the address before anybody has said Serve.
func takeEarly(d *postDoor) {
	err := d.open()
	d.serve = func(d *postDoor, ctx context.Context, gate plugin.Gate) error {
		if err != nil {
			return err
		}
		gate.Ready()
		d.work(ctx, gate)
		d.close()
		return nil
	}
}

func waitBeyondEnd(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
	soundAnswer(d, context.WithoutCancel(ctx), l, t)
}

func takenAtEnd(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
	soundAnswer(d, ctx, l, t)
	if ctx.Err() != nil {
		d.reply(l, Taken)
	}
}

func gateFaults() []fault[TransportHarness] {
	const (
		inactive  = "a node that isn't active lets nothing in, and says so"
		strangers = "who isn't authenticated gets nothing in"
		accepted  = "a message is called taken only after it was accepted"
		pipelined = "a message that waits for acceptance doesn't hold up the next of its sender"
		refusals  = "a refusal reaches the peer as what it is"
		unknown   = "what isn't known isn't answered, and its repeat is handed in"
	)
	return []fault[TransportHarness]{
		doorFault("doesn't ask whether the node is active", inactive, func(d *postDoor) {
			d.active = func(plugin.Gate, letter) *message.Failure { return nil }
		}),
		doorFault("asks once whether the node is active", inactive, func(d *postDoor) { d.active = activeOnce() }),
		doorFault("registers where it takes no messages", inactive, func(d *postDoor) { d.active = activeForMessages }),
		doorFault("calls standby a refusal for good", inactive, func(d *postDoor) { d.active = refuseWhileInactive }),
		doorFault("lets in who can't authenticate", strangers, func(d *postDoor) { d.login = loginAnyway }),
		doorFault("turns away for good when nobody can be asked", strangers, func(d *postDoor) { d.login = loginOrNever }),
		doorFault("doesn't wait once two were accepted", accepted, func(d *postDoor) { d.answer = trustful() }),
		doorFault("waits for one acceptance after the other", pipelined, func(d *postDoor) {
			d.task = func(task func()) { task() }
		}),
		replyFault("takes what is refused", refusals, message.UnknownRecipient, Taken),
		replyFault("refuses for good what may pass", refusals, message.PolicyFailed, Refused),
		replyFault("sends elsewhere what may pass", refusals, message.PolicyFailed, Elsewhere),
		replyFault("refuses now what it refuses for good", refusals, message.InsufficientFunds, Later),
		replyFault("doesn't send elsewhere when the disk is gone", refusals, message.StorageDown, Later),
		doorFault("refuses what may have been kept", unknown, func(d *postDoor) { d.answer = answerUnknown(Elsewhere) }),
		doorFault("takes what may not have been kept", unknown, func(d *postDoor) { d.answer = answerUnknown(Taken) }),
		doorFault("is still busy with what it left unanswered", unknown, stayBusy),
	}
}

func activeOnce() func(plugin.Gate, letter) *message.Failure {
	var once sync.Once
	var inactive *message.Failure
	return func(gate plugin.Gate, _ letter) *message.Failure {
		once.Do(func() { inactive = gate.Active() })
		return inactive
	}
}

func activeForMessages(gate plugin.Gate, l letter) *message.Failure {
	if l.get("Kind") == "register" {
		return nil
	}
	return gate.Active()
}

func refuseWhileInactive(gate plugin.Gate, _ letter) *message.Failure {
	if gate.Active() == nil {
		return nil
	}
	return message.Fail(message.Forbidden, "not here")
}

func loginAnyway(gate plugin.Gate, ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	account, err := gate.Authenticate(ctx, c)
	if err == nil {
		return account, nil
	}
	return plugin.Account{ID: "anonymous"}, nil
}

func loginOrNever(gate plugin.Gate, ctx context.Context, c plugin.Credentials) (plugin.Account, error) {
	account, err := gate.Authenticate(ctx, c)
	if err == nil {
		return account, nil
	}
	return account, message.Fail(message.Forbidden, "%w", err)
}

func trustful() func(*postDoor, context.Context, letter, plugin.Ticket) {
	var accepted atomic.Int64
	return func(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
		if accepted.Load() >= 2 {
			d.reply(l, Taken)
			return
		}
		if _, err := t.Accepted(ctx); err == nil {
			accepted.Add(1)
		}
		soundAnswer(d, ctx, l, t)
	}
}

// answerUnknown says something about what nobody knows.
func answerUnknown(reply Reply) func(*postDoor, context.Context, letter, plugin.Ticket) {
	return func(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
		_, err := t.Accepted(ctx)
		if errors.Is(err, plugin.ErrUnknown) && ctx.Err() == nil {
			d.reply(l, reply)
			return
		}
		soundAnswer(d, ctx, l, t)
	}
}

// stayBusy hands in nothing again that it left unanswered.
func stayBusy(d *postDoor) {
	var left sync.Map
	d.answer = func(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
		if _, err := t.Accepted(ctx); errors.Is(err, plugin.ErrUnknown) {
			left.Store(l.get("Reference"), true)
		}
		soundAnswer(d, ctx, l, t)
	}
	d.active = func(gate plugin.Gate, l letter) *message.Failure {
		if _, found := left.Load(l.get("Reference")); found {
			return message.FailForNow(message.Overloaded, "one moment")
		}
		return gate.Active()
	}
}

// replyFault answers one reason wrongly.
func replyFault(name, breaks string, reason message.Reason, reply Reply) fault[TransportHarness] {
	return doorFault(name, breaks, func(d *postDoor) {
		d.replyTo = func(f *message.Failure) Reply {
			if f.Reason == reason {
				return reply
			}
			return soundReply(f)
		}
	})
}

func arrivalFaults() []fault[TransportHarness] {
	const (
		order    = "messages are submitted in the order in which their sender sent them"
		content  = "an arrival is what the peer said"
		accounts = "an arrival names the account of its sender"
		repeats  = "a repeat has the key of what it repeats"
		keys     = "what is no repeat has a key of its own"
	)
	return []fault[TransportHarness]{
		doorFault("submits the newest first", order, func(d *postDoor) { d.order = newestFirst }),
		arrivalFault("trims the body", content, func(a *plugin.Arrival) { a.Message.Body = bytes.TrimSpace(a.Message.Body) }),
		arrivalFault("makes valid UTF-8 of the body", content, func(a *plugin.Arrival) { a.Message.Body = bytes.ToValidUTF8(a.Message.Body, nil) }),
		arrivalFault("cuts off what is over 8 KB", content, func(a *plugin.Arrival) { a.Message.Body = atMost(8<<10, a.Message.Body) }),
		arrivalFault("takes everything for text", content, func(a *plugin.Arrival) { a.Message.ContentType = transportText }),
		arrivalFault("loses the recipient's domain", content, func(a *plugin.Arrival) { a.Message.Recipient.Host = "" }),
		arrivalFault("takes the recipient for the sender", content, func(a *plugin.Arrival) { a.Message.From = a.Message.Recipient }),
		arrivalFault("loses the account's attributes", accounts, func(a *plugin.Arrival) { a.Account.Attributes = nil }),
		arrivalFault("has a key for each submission", repeats, func(a *plugin.Arrival) { a.Key = message.NewPublicID() }),
		arrivalFault("has no keys", keys, func(a *plugin.Arrival) { a.Key = "" }),
		arrivalFault("has a key for each text", keys, func(a *plugin.Arrival) { a.Key = a.Account.ID + string(a.Message.Body) }),
		arrivalFault("has a key for each sender", keys, func(a *plugin.Arrival) { a.Key = a.Account.ID }),
		arrivalFault("has keys that know no sender", keys, func(a *plugin.Arrival) { a.Key = strings.TrimPrefix(a.Key, a.Account.ID) }),
	}
}

func arrivalFault(name, breaks string, spoil func(*plugin.Arrival)) fault[TransportHarness] {
	return doorFault(name, breaks, func(d *postDoor) { d.arrive = spoil })
}

func newestFirst(letters []letter) []letter {
	letters = slices.Clone(letters)
	slices.Reverse(letters)
	return letters
}

func atMost(n int, body []byte) []byte { return body[:min(n, len(body))] }

func sendFaults() []fault[TransportHarness] {
	const (
		sends     = "Send hands the peer the message unchanged, and returns a receipt"
		leaves    = "Send leaves the message as it was"
		refuses   = "a peer's refusal is a failure, for good or for now as the peer says"
		silent    = "Send ends soon after its context, with a temporary failure"
		atOnce    = "several attempts run at the same time"
		receipts  = "a receipt has names of 1 to 64 octets for at most 255 parts"
		noParts   = "what a peer refuses whole comes back without parts"
		syntax    = "nothing in a message becomes syntax"
		reference = "repeats of a delivery have its reference, and no other delivery has"
	)
	return []fault[TransportHarness]{
		writeFault("trims the body on its way out", sends, func(m *message.Message, _ *plugin.Route) { m.Body = bytes.TrimSpace(m.Body) }),
		writeFault("sends everything as text", sends, func(m *message.Message, _ *plugin.Route) { m.ContentType = transportText }),
		writeFault("sends what isn't text in its own name", sends, func(m *message.Message, _ *plugin.Route) {
			if m.ContentType == transportBinary {
				m.From.User = "gateway"
			}
		}),
		doorFault("counts the hops in the message itself", leaves, func(d *postDoor) { d.write = countHops }),
		doorFault("returns a plain error when refused", refuses, func(d *postDoor) { d.outcome = plainRefusal }),
		refusalFault("never gives up", refuses, true),
		refusalFault("gives up at each refusal", refuses, false),
		doorFault("gives up on who is silent", silent, func(d *postDoor) { d.await = awaitOrNever }),
		doorFault("returns the end of Send's context", silent, func(d *postDoor) { d.await = awaitPlainly }),
		doorFault("waits longer than it may", silent, func(d *postDoor) { d.await = awaitTooLong }),
		doorFault("sends one message after the other", atOnce, func(d *postDoor) { d.send = oneByOne() }),
		receiptFault("names the parts without a name", receipts, ""),
		receiptFault("has long names", receipts, strings.Repeat("x", plugin.MaxPeerID+1)),
		receiptFault("has many parts", receipts, strings.Split(strings.Repeat("x", plugin.MaxParts+1), "")...),
		doorFault("names parts when refused", noParts, func(d *postDoor) { d.outcome = alwaysParts }),
		rawFault("writes the display name as it is", "Name"),
		rawFault("writes the content type as it is", "Type"),
		rawFault("writes headers as they are", "Subject"),
		doorFault("tries again what can't be built", syntax, func(d *postDoor) { d.send = neverUnbuildable }),
		writeFault("has a reference for each attempt", reference, func(_ *message.Message, r *plugin.Route) { r.Reference = message.NewPublicID() }),
		writeFault("has a reference for each message", reference, func(m *message.Message, r *plugin.Route) { r.Reference = m.PublicID }),
	}
}

// writeFault writes something else than it was given.
func writeFault(name, breaks string, spoil func(*message.Message, *plugin.Route)) fault[TransportHarness] {
	return doorFault(name, breaks, func(d *postDoor) {
		d.write = func(m *message.Message, route plugin.Route) letter {
			spoiled := *m
			spoil(&spoiled, &route)
			return soundWrite(&spoiled, route)
		}
	})
}

// receiptFault returns receipts with some names when it should.
func receiptFault(name, breaks string, peerIDs ...string) fault[TransportHarness] {
	return doorFault(name, breaks, func(d *postDoor) {
		d.outcome = func(r Reply) (plugin.Receipt, error) {
			receipt, err := soundOutcome(r)
			if err == nil {
				receipt = plugin.Receipt{PeerIDs: peerIDs}
			}
			return receipt, err
		}
	})
}

func alwaysParts(r Reply) (plugin.Receipt, error) {
	_, err := soundOutcome(r)
	return plugin.Receipt{PeerIDs: []string{"x"}, Progress: []byte{1}}, err
}

func countHops(m *message.Message, route plugin.Route) letter {
	m.Hops--
	return soundWrite(m, route)
}

func plainRefusal(r Reply) (plugin.Receipt, error) {
	receipt, err := soundOutcome(r)
	if err != nil {
		return receipt, errors.New("refused")
	}
	return receipt, nil
}

func refusalFault(name, breaks string, temporary bool) fault[TransportHarness] {
	return doorFault(name, breaks, func(d *postDoor) {
		d.outcome = func(r Reply) (plugin.Receipt, error) {
			receipt, err := soundOutcome(r)
			if err == nil {
				return receipt, nil
			}
			return receipt, &message.Failure{Reason: message.Declined, Temporary: temporary}
		}
	})
}

func awaitOrNever(ctx context.Context, answer <-chan Reply) (Reply, error) {
	reply, err := soundAwait(ctx, answer)
	if err != nil {
		return reply, message.Fail(message.NoAnswer, "%w", err)
	}
	return reply, nil
}

func awaitPlainly(ctx context.Context, answer <-chan Reply) (Reply, error) {
	reply, err := soundAwait(ctx, answer)
	if err != nil {
		return reply, ctx.Err()
	}
	return reply, nil
}

func awaitTooLong(ctx context.Context, answer <-chan Reply) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*soon)
	defer cancel()
	return soundAwait(ctx, answer)
}

type sendFunc = func(*postDoor, context.Context, *message.Message, plugin.Route) (plugin.Receipt, error)

func oneByOne() sendFunc {
	var mu sync.Mutex
	return func(d *postDoor, ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
		mu.Lock()
		defer mu.Unlock()
		return soundSend(d, ctx, m, route)
	}
}

// rawFault lets anything pass in what stands under a name.
func rawFault(name, field string) fault[TransportHarness] {
	return doorFault(name, "nothing in a message becomes syntax", func(d *postDoor) {
		d.harmful = func(l letter) bool {
			l.head = slices.DeleteFunc(slices.Clone(l.head), func(h message.Header) bool {
				return strings.HasPrefix(h.Name, field)
			})
			return l.breaks()
		}
	})
}

func neverUnbuildable(d *postDoor, ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	receipt, err := soundSend(d, ctx, m, route)
	if f := message.AsFailure(err); err != nil && f.Reason == message.Unbuildable {
		return receipt, message.FailForNow(message.Internal, "%w", f.Err)
	}
	return receipt, err
}
