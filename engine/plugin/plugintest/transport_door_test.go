package plugintest

import (
	"context"
	"errors"
	"sync"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// postDoor is a small sound transport over post. Each func is a step that a
// broken one takes in another way.
type postDoor struct {
	post    *post
	mu      sync.Mutex
	box     *mailbox // nil: not open
	waiting map[string]chan Reply
	tasks   sync.WaitGroup

	serve   func(d *postDoor, ctx context.Context, gate plugin.Gate) error
	order   func([]letter) []letter
	active  func(plugin.Gate, letter) *message.Failure
	login   func(gate plugin.Gate, ctx context.Context, c plugin.Credentials) (plugin.Account, error)
	arrive  func(*plugin.Arrival)
	answer  func(d *postDoor, ctx context.Context, l letter, t plugin.Ticket)
	replyTo func(*message.Failure) Reply
	task    func(func()) // runs what waits for acceptance

	send    func(d *postDoor, ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error)
	write   func(*message.Message, plugin.Route) letter
	harmful func(letter) bool
	await   func(ctx context.Context, answer <-chan Reply) (Reply, error)
	outcome func(Reply) (plugin.Receipt, error)
}

const doorAddress = "door"

func newPostDoor(p *post) *postDoor {
	d := &postDoor{
		post: p, waiting: map[string]chan Reply{},
		serve:   soundServe,
		order:   func(letters []letter) []letter { return letters },
		active:  func(gate plugin.Gate, _ letter) *message.Failure { return gate.Active() },
		login:   plugin.Gate.Authenticate,
		arrive:  func(*plugin.Arrival) {},
		answer:  soundAnswer,
		replyTo: soundReply,
		send:    soundSend,
		write:   soundWrite,
		harmful: letter.breaks,
		await:   soundAwait,
		outcome: soundOutcome,
	}
	d.task = d.tasks.Go
	return d
}

func (d *postDoor) Serve(ctx context.Context, gate plugin.Gate) error { return d.serve(d, ctx, gate) }

func soundServe(d *postDoor, ctx context.Context, gate plugin.Gate) error {
	if err := d.open(); err != nil {
		return err
	}
	gate.Ready()
	d.work(ctx, gate)
	d.close()
	return nil
}

func (d *postDoor) open() error {
	box, err := d.post.open(doorAddress)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.box = box
	return err
}

func (d *postDoor) close() {
	d.tasks.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.box.close()
	d.box = nil
}

func (d *postDoor) work(ctx context.Context, gate plugin.Gate) {
	for ctx.Err() == nil {
		for _, l := range d.order(d.box.receive(ctx)) {
			d.handle(ctx, gate, l)
		}
	}
}

func (d *postDoor) handle(ctx context.Context, gate plugin.Gate, l letter) {
	if l.get("Kind") == "answer" {
		d.settle(l)
		return
	}
	if why := d.active(gate, l); why != nil {
		d.reply(l, soundReply(why))
		return
	}
	proof := &plugin.Password{SystemID: l.get("From"), Password: l.get("Secret")}
	account, err := d.login(gate, ctx, plugin.Credentials{Password: proof})
	switch {
	case err != nil:
		d.reply(l, soundReply(message.AsFailure(err)))
	case l.get("Kind") == "register":
		_, err := gate.Register(ctx, plugin.Registration{Account: account, AOR: l.address("From")})
		d.reply(l, replyToError(err))
	default:
		d.submit(ctx, gate, l, account)
	}
}

func (d *postDoor) submit(ctx context.Context, gate plugin.Gate, l letter, account plugin.Account) {
	m := &message.Message{From: l.address("From"), Recipient: l.address("To"), ContentType: l.get("Type"), Body: l.body}
	a := plugin.Arrival{Message: m, Account: account, Key: account.ID + " " + l.get("Reference")}
	d.arrive(&a)
	ticket := gate.Submit(a)
	d.task(func() { d.answer(d, ctx, l, ticket) })
}

func soundAnswer(d *postDoor, ctx context.Context, l letter, t plugin.Ticket) {
	_, err := t.Accepted(ctx)
	if errors.Is(err, plugin.ErrUnknown) {
		return // the peer says it again
	}
	if err != nil {
		d.reply(l, d.replyTo(message.AsFailure(err)))
		return
	}
	d.reply(l, Taken)
}

// reply answers a letter; who has gone needs no answer.
func (d *postDoor) reply(l letter, r Reply) { _ = answerLetter(d.post, l, r) }

func answerLetter(p *post, l letter, r Reply) error {
	return p.send(l.get("Reply-To"), newLetter(nil, "Kind", "answer", "Number", l.get("Number"), "Reply", string(r)))
}

func replyToError(err error) Reply {
	if err != nil {
		return soundReply(message.AsFailure(err))
	}
	return Taken
}

func soundReply(f *message.Failure) Reply {
	switch {
	case f.Reason.OfNode():
		return Elsewhere
	case f.Temporary:
		return Later
	}
	return Refused
}

func (d *postDoor) Send(ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	return d.send(d, ctx, m, route)
}

func soundSend(d *postDoor, ctx context.Context, m *message.Message, route plugin.Route) (plugin.Receipt, error) {
	l := d.write(m, route)
	if d.harmful(l) {
		return plugin.Receipt{}, message.Fail(message.Unbuildable, "a line end")
	}
	number, answer := d.expect()
	defer d.forget(number)
	l.head = append(newLetter(nil, "Reply-To", doorAddress, "Number", number).head, l.head...)
	if err := d.post.send(route.Address, l); err != nil {
		return plugin.Receipt{}, message.FailForNow(message.Unavailable, "%w", err)
	}
	reply, err := d.await(ctx, answer)
	if err != nil {
		return plugin.Receipt{}, err
	}
	return d.outcome(reply)
}

func soundWrite(m *message.Message, route plugin.Route) letter {
	l := newLetter(m.Body, "Kind", "message", "Reference", route.Reference,
		"From", m.From.String(), "Name", m.DisplayName, "To", m.Recipient.String(), "Type", m.ContentType)
	l.head = append(l.head, m.Headers...)
	return l
}

func soundAwait(ctx context.Context, answer <-chan Reply) (Reply, error) {
	select {
	case reply := <-answer:
		return reply, nil
	case <-ctx.Done():
		return "", message.FailForNow(message.NoAnswer, "%w", ctx.Err())
	}
}

func soundOutcome(r Reply) (plugin.Receipt, error) {
	switch r {
	case Taken:
		return plugin.Receipt{Final: true}, nil
	case Refused:
		return plugin.Receipt{}, message.Fail(message.Declined, "refused")
	}
	return plugin.Receipt{}, message.FailForNow(message.Unavailable, "not now")
}

// expect makes place for an answer.
func (d *postDoor) expect() (number string, answer <-chan Reply) {
	number = d.post.number()
	c := make(chan Reply, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting[number] = c
	return number, c
}

func (d *postDoor) forget(number string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, number)
}

// settle hands an answer to who waits for it.
func (d *postDoor) settle(l letter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.waiting[l.get("Number")]; c != nil {
		c <- Reply(l.get("Reply"))
		delete(d.waiting, l.get("Number"))
	}
}

// doors makes a harness around doors that are broken in one way; nil: in none.
func doors(breakIt func(*postDoor)) func(T) TransportHarness {
	return func(T) TransportHarness {
		p := newPost()
		return TransportHarness{
			Open: func(T) plugin.Transport {
				d := newPostDoor(p)
				if breakIt != nil {
					breakIt(d)
				}
				return d
			},
			Say: func(ctx context.Context, messages ...Said) []Reply { return sayOver(ctx, p, messages) },
			Register: func(ctx context.Context, aor message.Address, secret string) Reply {
				return exchange(ctx, p, newLetter(nil, "Kind", "register", "From", aor.String(), "Secret", secret))[0]
			},
			Route: func(t T, hear func(Heard) Reply) plugin.Route { return listenOver(t, p, hear) },
		}
	}
}

func sayOver(ctx context.Context, p *post, messages []Said) []Reply {
	var letters []letter
	for _, s := range messages {
		letters = append(letters, newLetter(s.Body, "Kind", "message", "Reference", s.ID, "Secret", s.Secret,
			"From", s.From.String(), "To", s.To.String(), "Type", s.ContentType))
	}
	return exchange(ctx, p, letters...)
}

// exchange sends letters at once and waits for the answers.
func exchange(ctx context.Context, p *post, letters ...letter) []Reply {
	box := p.openAny()
	defer box.close()
	replies, place := make([]Reply, len(letters)), map[string]int{}
	for i, l := range letters {
		number := p.number()
		replies[i], place[number] = Silence, i
		letters[i].head = append(newLetter(nil, "Reply-To", box.address, "Number", number).head, l.head...)
	}
	if err := p.send(doorAddress, letters...); err != nil {
		return replies
	}
	for len(place) > 0 {
		answers := box.receive(ctx)
		if answers == nil {
			return replies
		}
		for _, l := range answers {
			if i, found := place[l.get("Number")]; found {
				replies[i] = Reply(l.get("Reply"))
				delete(place, l.get("Number"))
			}
		}
	}
	return replies
}

// listenOver makes a peer.
func listenOver(t T, p *post, hear func(Heard) Reply) plugin.Route {
	box := p.openAny()
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for ctx.Err() == nil {
			for _, l := range box.receive(ctx) {
				tasks.Go(func() { hearLetter(p, l, hear) })
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
		box.close()
	})
	return plugin.Route{Transport: "post", Address: box.address}
}

func hearLetter(p *post, l letter, hear func(Heard) Reply) {
	reply := hear(Heard{
		Reference: l.get("Reference"), From: l.address("From"), To: l.address("To"),
		ContentType: l.get("Type"), Body: l.body, Headers: l.head,
	})
	if reply != Silence {
		_ = answerLetter(p, l, reply) // the door may have gone
	}
}

// trusting are doors whose peers prove nothing, as loop's and a site's.
func trusting(T) TransportHarness {
	trusted := func(sender message.Address) plugin.Account {
		return plugin.Account{ID: sender.String(), Identities: []message.Address{sender}}
	}
	h := doors(func(d *postDoor) {
		d.login = func(_ plugin.Gate, _ context.Context, c plugin.Credentials) (plugin.Account, error) {
			sender, err := message.ParseAddress(c.Password.SystemID)
			return trusted(sender), err
		}
	})(nil)
	h.Register, h.Trusted = nil, trusted
	return h
}
