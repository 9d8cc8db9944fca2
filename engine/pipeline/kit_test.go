package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/plugins/memory"
)

// testWait bounds every wait of these tests; it is far more than any needs.
const testWait = 20 * time.Second

// settings configure the plugins of a kit: there is nothing to set.
type settings struct{}

// Validate is plugin.Config.
func (settings) Validate() error { return nil }

// kit is a node whose plugins are all in the test's hands.
type kit struct {
	t       *testing.T
	storage plugin.Storage
	door    *testDoor
	policy  *testPolicy
	book    *testBook

	dir   string // of its data
	admin string // the address of its admin API

	stop context.CancelFunc
	done chan error
	up   chan struct{}
}

// start runs a node on a storage. It may fail: done says so.
func start(t *testing.T, storage plugin.Storage, door *testDoor, policy *testPolicy) *kit {
	t.Helper()
	return startAs(t, "test", storage, door, policy)
}

// startAs runs a node of that name.
func startAs(t *testing.T, name string, storage plugin.Storage, door *testDoor, policy *testPolicy) *kit {
	t.Helper()
	k := &kit{t: t, storage: storage, door: door, policy: policy, book: &testBook{}, done: make(chan error, 1), up: make(chan struct{}), dir: t.TempDir()}
	ctx, stop := context.WithCancel(t.Context())
	k.stop = stop
	config := engine.Config{
		Node: name, DataDir: k.dir, AdminListen: "127.0.0.1:0",
		Storage:  instance("storage", plugin.DefineStorage("test", "", settings{}, give[plugin.Storage](storage))),
		Policy:   instance("policy", plugin.DefinePolicy("test", "", settings{}, give(plugin.Always("1", policy)))),
		Accounts: instance("accounts", plugin.DefineAccounts("test", "", settings{}, give[plugin.Accounts](testAccounts{}))),
		Charging: instance("charging", plugin.DefineCharging("test", "", settings{}, k.book.open)),
		Transports: []engine.Instance{
			instance("door", plugin.DefineTransport("door", "", settings{}, give[plugin.Transport](door)).AsRegistrar()),
			instance("trunk", plugin.DefineTransport("trunk", "", settings{}, give[plugin.Transport](door.trunk))),
		},
	}
	log := slog.New(slog.DiscardHandler)
	go func() {
		k.done <- engine.New(config, log, engine.Options{}).Run(ctx, func(admin string) {
			k.admin = admin
			close(k.up)
		})
	}()
	return k
}

// started waits until the node takes traffic; false: it ended before.
func (k *kit) started() bool {
	select {
	case <-k.up:
		return true
	case err := <-k.done:
		k.done <- err
		return false
	case <-time.After(testWait):
		k.t.Fatal("the node neither starts nor ends")
		return false
	}
}

// end stops the node and waits for it.
func (k *kit) end() error {
	k.stop()
	select {
	case err := <-k.done:
		return err
	case <-time.After(testWait):
		k.t.Fatal("the node doesn't end")
		return nil
	}
}

func instance(name string, d plugin.Definition) engine.Instance {
	return engine.Instance{Name: name, Plugin: d, Settings: d.NewConfig()}
}

func give[T any](value T) func(context.Context, plugin.Env, settings) (T, error) {
	return func(context.Context, plugin.Env, settings) (T, error) { return value, nil }
}

func address(user string) message.Address { return message.Address{User: user, Host: "example.com"} }

func account(user string) plugin.Account {
	return plugin.Account{ID: user, Identities: []message.Address{address(user)}}
}

// testAccounts knows everybody whose name doesn't begin with a question mark.
type testAccounts struct{}

func (testAccounts) Verify(context.Context, plugin.Credentials) (plugin.Account, error) {
	return plugin.Account{}, message.Fail(message.Unauthenticated, "not asked in these tests")
}

func (testAccounts) Lookup(_ context.Context, a message.Address) (plugin.Account, error) {
	if a.User[0] == '?' {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "unknown")
	}
	return account(a.User), nil
}

func (testAccounts) Close() error { return nil }

// testPolicy returns one plan for everything.
type testPolicy struct {
	change func(*plugin.Plan) // of the default plan; nil: none
	// asked may change it further, by the question; nil: it doesn't.
	asked func(plugin.Question, plugin.Supply, *plugin.Plan)
	err   error
	panic bool
}

func (p *testPolicy) Decide(_ context.Context, q plugin.Question, more plugin.Supply) (plugin.Plan, error) {
	if p.panic {
		panic("a policy that panics")
	}
	plan := plugin.DefaultPlan()
	plan.Service, plan.Transports = "test", []string{"door"}
	if p.change != nil {
		p.change(&plan)
	}
	if p.asked != nil {
		p.asked(q, more, &plan)
	}
	return plan, p.err
}

// also changes the plan further.
func (p *testPolicy) also(change func(*plugin.Plan)) {
	before := p.change
	p.change = func(plan *plugin.Plan) {
		if before != nil {
			before(plan)
		}
		change(plan)
	}
}

// charged is a policy that charges and answers when the outcome is known.
func charged() *testPolicy {
	return &testPolicy{change: func(p *plugin.Plan) {
		p.Charging.Mode, p.Retry.Backoff = plugin.ChargeEvent, []time.Duration{time.Second}
	}}
}

// testBook charges on tables: a row for each hold, a row for each payment with
// how often it was made.
type testBook struct {
	refuse atomic.Bool
}

func (b *testBook) open(_ context.Context, env plugin.Env, _ settings) (plugin.Charging, error) {
	return &openBook{testBook: b, tables: env.Tables, paid: map[message.ID]int{}}, nil
}

type openBook struct {
	*testBook
	tables plugin.Tables
	paid   map[message.ID]int
}

func (b *openBook) Authorize(_ context.Context, r plugin.Request) (plugin.Authorization, error) {
	if b.refuse.Load() {
		return plugin.Authorization{}, message.Fail(message.InsufficientFunds, "short")
	}
	return plugin.Authorization{Changes: []plugin.Change{{Table: "holds", Key: r.Key[:], Value: []byte{1}}}}, nil
}

func (b *openBook) Settle(ctx context.Context, records []plugin.Record) ([]plugin.Change, error) {
	var changes []plugin.Change
	for _, r := range records {
		changes = append(changes, plugin.Change{Table: "holds", Key: r.Key[:]})
		if !r.Charged {
			continue
		}
		// Idempotent by key: what is on disk already stays as it is.
		rows, err := b.tables.Scan(ctx, "paid", r.Key[:], append(r.Key[:], 0), 1)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			changes = append(changes, plugin.Change{Table: "paid", Key: r.Key[:], Value: []byte{1}})
		}
	}
	return changes, nil
}

func (b *openBook) Close() error { return nil }

// testDoor is a transport whose peers are a function.
type testDoor struct {
	gate  plugin.Gate
	ready chan struct{}
	take  func(*message.Message, plugin.Route) (plugin.Receipt, error)
	// taking, if it isn't nil, is asked instead of take.
	taking func(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error)
	trunk  *testTrunk

	mu    sync.Mutex
	sent  []sent
	quiet bool // nothing is noted in sent
}

type sent struct {
	body, contact, reference string
	final                    bool
}

// receiptOf begins what stands for the body of a receipt; its message's name follows.
const receiptOf = "receipt of "

func newDoor() *testDoor {
	return &testDoor{
		ready: make(chan struct{}),
		trunk: &testTrunk{sent: make(chan string, 100)},
		take: func(*message.Message, plugin.Route) (plugin.Receipt, error) {
			return plugin.Receipt{Final: true}, nil
		},
	}
}

func (d *testDoor) Serve(ctx context.Context, gate plugin.Gate) error {
	d.gate = gate
	close(d.ready)
	gate.Ready()
	<-ctx.Done()
	return nil
}

func (d *testDoor) Send(ctx context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
	taking := d.taking
	if taking == nil {
		taking = func(_ context.Context, m *message.Message, r plugin.Route) (plugin.Receipt, error) {
			return d.take(m, r)
		}
	}
	receipt, err := taking(ctx, m, r)
	if err == nil && !d.quiet {
		d.mu.Lock()
		defer d.mu.Unlock()
		contact := ""
		if r.Binding != nil {
			contact = r.Binding.Contact
		}
		body := string(m.Body)
		if m.Receipt != nil {
			body = receiptOf + m.Receipt.PublicID
		}
		d.sent = append(d.sent, sent{body: body, contact: contact, reference: r.Reference, final: receipt.Final})
	}
	return receipt, err
}

// testTrunk is a transport to whoever is on the other side.
type testTrunk struct{ sent chan string }

func (d *testTrunk) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	<-ctx.Done()
	return nil
}

func (d *testTrunk) Send(_ context.Context, m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	d.sent <- string(m.Body)
	return plugin.Receipt{Final: true, Unwrapped: true}, nil
}

// bodies lists what was taken by peers, in order.
func (d *testDoor) bodies() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var bodies []string
	for _, s := range d.sent {
		bodies = append(bodies, s.body)
	}
	return bodies
}

func (d *testDoor) register(ctx context.Context, user string, contacts ...string) error {
	r := plugin.Registration{Account: account(user), AOR: address(user), CallID: message.NewPublicID(), CSeq: 1}
	for _, contact := range contacts {
		r.Bindings = append(r.Bindings, plugin.Binding{Contact: contact, Device: contact, Expires: time.Now().Add(time.Hour)})
	}
	_, err := d.gate.Register(ctx, r)
	return err
}

// submit hands in a message.
func (d *testDoor) submit(from, to, body string, change ...func(*plugin.Arrival)) plugin.Ticket {
	a := plugin.Arrival{
		Message: &message.Message{From: address(from), Recipient: address(to), ContentType: "text/plain", Body: []byte(body)},
		Account: account(from), Key: from + " " + to + " " + body,
	}
	for _, c := range change {
		c(&a)
	}
	return d.gate.Submit(a)
}

// expires sets how long the sender wants it kept.
func expires(after time.Duration) func(*plugin.Arrival) {
	return func(a *plugin.Arrival) { a.Message.Expires = &after }
}

// rows reads a table: what is on disk, by key.
func rows(t testing.TB, s plugin.Storage, table string) map[string]string {
	t.Helper()
	changes, err := s.Scan(t.Context(), table, nil, nil, 10000)
	if err != nil {
		t.Fatalf("scan %s: %v", table, err)
	}
	found := map[string]string{}
	for _, c := range changes {
		found[string(c.Key)] = string(c.Value)
	}
	return found
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(testWait)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it doesn't come to pass that %s", what)
		}
	}
}

// node is a kit that has started, on a disk of its own.
func node(t *testing.T, policy *testPolicy) (*kit, *memory.Disk) {
	t.Helper()
	disk := memory.NewDisk()
	k := start(t, memory.Open(disk), newDoor(), policy)
	if !k.started() {
		t.Fatalf("the node doesn't start: %v", <-k.done)
	}
	t.Cleanup(func() {
		if err := k.end(); err != nil {
			t.Errorf("the node ends with %v", err)
		}
	})
	return k, disk
}

// reason is why an error is one.
func reason(err error) message.Reason {
	f, ok := errors.AsType[*message.Failure](err)
	if !ok {
		return message.Reason(fmt.Sprint(err))
	}
	return f.Reason
}

func reopen(d *memory.Disk) plugin.Storage { return memory.Open(d) }

// call sends a request to the node's admin API and checks the answer's status.
func (k *kit) call(t *testing.T, method, path string, want int) []byte {
	t.Helper()
	answer, err := k.ask(t.Context(), method, path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		t.Fatalf("%s %s: %s %s %v, want %d", method, path, answer.Status, body, err, want)
	}
	return body
}

func (k *kit) ask(ctx context.Context, method, path string) (*http.Response, error) {
	token, err := os.ReadFile(filepath.Join(k.dir, engine.TokenFile))
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+k.admin+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return http.DefaultClient.Do(r)
}

// messages asks the node for those in a state; "" for all.
func (k *kit) messages(t *testing.T, state spool.StateName) []pipeline.View {
	t.Helper()
	path := "/v1/messages"
	if state != "" {
		path += "?state=" + string(state)
	}
	var page pipeline.Page
	if err := json.Unmarshal(k.call(t, "GET", path, 200), &page); err != nil {
		t.Fatal(err)
	}
	return page.Messages
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
