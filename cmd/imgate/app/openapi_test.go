package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/ladder"
	"github.com/imgate/imgate/plugins/ledger"
	"github.com/imgate/imgate/plugins/memory"
	"github.com/imgate/imgate/plugins/rego"
)

// api is a server of the real plugins, and what its API is said to be.
type api struct {
	t      *testing.T
	node   *node
	base   string
	token  string
	doc    *openapi3.T
	router routers.Router
	gate   plugin.Gate     // of the one transport, which the test plays
	seen   map[string]bool // "GET /v1/status 200"
}

// playedTransport is a registrar whose recipients get what they are sent, or
// refuse it if they are called 1003: as something that can't be built.
type playedTransport struct{ gates chan plugin.Gate }

func (p playedTransport) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	p.gates <- gate
	<-ctx.Done()
	return nil
}

func (p playedTransport) Send(_ context.Context, m *message.Message, _ plugin.Route) (plugin.Receipt, error) {
	if m.Recipient.User == "1003" {
		return plugin.Receipt{}, message.Fail(message.Unbuildable, "on purpose")
	}
	return plugin.Receipt{Final: true}, nil
}

const apiYAML = `
storage: {plugin: memory}
admin: {listen: "127.0.0.1:0"}
charging: {plugin: ledger, price: "0.01"}
transports:
  sip: {plugin: sip}
`

func startAPI(t *testing.T) *api {
	t.Helper()
	return startNode(t, "test", memory.NewDisk(), nil)
}

// apiPolicies decide there: numbers that begin with 99 are another way to reach
// subscribers, who see somebody else as the sender.
var apiPolicies = map[string]string{
	"onnet.rego": "package imgate.services.onnet\n\nmatch := {\"domains\": [\"*\"]}\n\nplan.store := \"1h\"\n",
	"short.rego": `package imgate.services.short

match := {"prefixes": ["99"]}

plan.rewrite := {
	"sender": "100@sip.example.com",
	"recipient": sprintf("%s@sip.example.com", [substring(input.recipient.user, 2, -1)]),
}
`,
}

func writePolicies(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range apiPolicies {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startNode starts one of the nodes that share a disk: the first one, or one
// beside another that is active.
func startNode(t *testing.T, name string, disk *memory.Disk, active *api) *api {
	t.Helper()
	gates := make(chan plugin.Gate, 1)
	plugins := []plugin.Definition{
		plugin.DefineTransport("sip", "", none{}, func(context.Context, plugin.Env, none) (plugin.Transport, error) {
			return playedTransport{gates}, nil
		}).AsRegistrar(),
		plugin.DefineStorage("memory", "", memory.Config{}, func(context.Context, plugin.Env, memory.Config) (plugin.Storage, error) {
			return memory.Open(disk), nil
		}),
		rego.Plugin, ledger.Accounts, ledger.Charging, ladder.Plugin,
	}
	dir := t.TempDir()
	path := write(t, "imgate.yaml", apiYAML+"data_dir: "+dir+"\nnode: "+name+"\npolicy: {plugin: rego, dir: "+writePolicies(t)+"}\n")
	load := &source{path: &path, plugins: plugins}
	config, err := load.load()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	a := &api{t: t, node: newNode(config, load, newNotifier(log), log), seen: map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	up, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- a.node.Run(ctx, func(address string) { up <- address }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case address := <-up:
		a.base = "http://" + address
	case <-a.node.stands:
		a.base = "http://" + active.await(name+" is there", func(c cluster) bool { return c.find(name) != nil }).find(name).Admin
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	a.gate = <-gates
	token, err := os.ReadFile(filepath.Join(dir, engine.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	a.token = strings.TrimSpace(string(token))
	a.read()
	return a
}

// read reads the description as the server gives it.
func (a *api) read() {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.base+"/v1/openapi.yaml", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.doc, err = openapi3.NewLoader().LoadFromData(text); err != nil {
		a.t.Fatal(err)
	}
	if err := a.doc.Validate(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	a.doc.Servers = nil // this one has another address
	if a.router, err = legacy.NewRouter(a.doc); err != nil {
		a.t.Fatal(err)
	}
}

// call sends a request and holds what comes back against the description;
// requests that succeed must be described too. It returns the answer's body.
func (a *api) call(method, target, kind, body string, want int, change ...func(*http.Request)) string {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.base+target, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for _, f := range change {
		f(r)
	}
	route, parameters, err := a.router.FindRoute(r)
	if err != nil {
		a.t.Fatalf("%s %s isn't described: %v", method, target, err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if answer.StatusCode != want {
		a.t.Errorf("%s %s: status %d, want %d: %s", method, target, answer.StatusCode, want, text)
	}
	a.seen[fmt.Sprintf("%s %s %d", method, route.Path, answer.StatusCode)] = true
	request := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if want < 300 {
		r.Body = io.NopCloser(strings.NewReader(body))
		if err := openapi3filter.ValidateRequest(a.t.Context(), request); err != nil {
			a.t.Errorf("%s %s works and isn't as described: %v", method, target, err)
		}
	}
	err = openapi3filter.ValidateResponse(a.t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: answer.StatusCode, Header: answer.Header,
		Body: io.NopCloser(bytes.NewReader(text)), Options: request.Options,
	})
	if err != nil {
		a.t.Errorf("%s %s: the answer %d isn't as described: %v\n%s", method, target, answer.StatusCode, err, text)
	}
	return string(text)
}

func (a *api) get(target string, want int) string { return a.call("GET", target, "", "", want) }

func (a *api) post(target, body string, want int) string {
	return a.call("POST", target, "application/json", body, want)
}

// say has a message sent and returns its id.
func (a *api) say(from, to string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	sender := message.Address{User: from, Host: "sip.example.com"}
	ticket := a.gate.Submit(plugin.Arrival{
		Message: &message.Message{
			From: sender, Recipient: message.Address{User: to, Host: "sip.example.com"},
			ContentType: "text/plain", Body: []byte("hello"), Hops: 70, Peer: "127.0.0.1:5070",
		},
		Account: plugin.Account{ID: sender.String(), Identities: []message.Address{sender}},
		Key:     from + to + fmt.Sprint(time.Now().UnixNano()),
	})
	answer, err := ticket.Accepted(ctx)
	if err != nil {
		a.t.Fatalf("%s to %s: %v", from, to, err)
	}
	ticket.First(ctx)
	return answer.ID.String()
}

// register lets a recipient be reached.
func (a *api) register(user string) {
	a.t.Helper()
	aor := message.Address{User: user, Host: "sip.example.com"}
	account := plugin.Account{ID: aor.String(), Identities: []message.Address{aor}}
	_, err := a.gate.Register(a.t.Context(), plugin.Registration{
		Account: account, AOR: aor, CallID: "c", CSeq: 1,
		Bindings: []plugin.Binding{{Account: account.ID, AOR: aor, Transport: "sip", Contact: "sip:" + user + "@127.0.0.1", Expires: time.Now().Add(time.Hour), CallID: "c", CSeq: 1}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// TestDescription holds the OpenAPI description against a server: both know
// the same routes, and each operation answers as described.
func TestDescription(t *testing.T) {
	a := startAPI(t)
	a.checkRoutes()

	stranger := func(r *http.Request) { r.Header.Del("Authorization") }
	a.get("/healthz", 200)
	a.get("/readyz", 200)
	a.call("GET", "/metrics", "", "", 200, stranger)
	a.get("/v1/openapi.yaml", 200)
	a.get("/v1/status", 200)
	a.get("/v1/status?x=1", 400)
	a.get(policyPath, 200)
	a.get(policyPath+"?x=1", 400)
	a.checkCluster()
	a.post("/v1/reload", "", 200)
	a.post("/v1/reload?x=1", "", 400)

	const accounts = "/v1/accounts"
	for _, user := range []string{"1001", "1002", "1003"} {
		a.post(accounts, `{"aor":"`+user+`@sip.example.com","password":"correct-horse","balance":"10.00","identities":["4930`+user+`"],"attributes":{"class":"gold"}}`, 201)
	}
	a.post(accounts, `{"aor":"1001@sip.example.com","password":"correct-horse"}`, 409)
	a.post(accounts, `{"aor":"nobody"}`, 400)
	a.post(accounts, `{"aor":"`+strings.Repeat("x", 1<<20)+`"}`, 413)
	a.get(accounts+"?limit=2&domain=sip.example.com&prefix=1&suspended=false&balance_below=20.00", 200)
	a.get(accounts+"?limit=0", 400)
	a.get(accounts+"/1001@sip.example.com", 200)
	a.get(accounts+"/1009@sip.example.com", 404)
	a.get(accounts+"/nobody", 400)
	a.post(accounts+"/1001@sip.example.com/credit", `{"amount":"5.00","key":"k"}`, 200)
	a.post(accounts+"/1001@sip.example.com/credit", `{"amount":"6.00","key":"k"}`, 409)
	a.post(accounts+"/1001@sip.example.com/credit", `{"amount":"much"}`, 400)
	a.post(accounts+"/1009@sip.example.com/credit", `{"amount":"5.00"}`, 404)
	for _, change := range []string{"suspend", "resume"} {
		a.post(accounts+"/1001@sip.example.com/"+change, "", 200)
		a.post(accounts+"/1009@sip.example.com/"+change, "", 404)
		a.post(accounts+"/nobody/"+change, "", 400)
	}
	a.call("POST", accounts+"/import?file=a.csv", "text/csv", "aor,password,balance\n2001@sip.example.com,correct-horse,1.00\n", 201)
	a.call("POST", accounts+"/import", "text/csv", "aor,password,balance\n2001@sip.example.com,correct-horse,1.00\n", 409)
	a.call("POST", accounts+"/import", "text/csv", "nonsense\n", 400)

	a.register("1002")
	a.register("1003")
	delivered, waits, odd, rewritten := a.say("1001", "1002"), a.say("1001", "2001"), a.say("1001", "1003"), a.say("1001", "992001")
	const messages = "/v1/messages"
	a.checkRewritten(rewritten)
	a.get(messages+"?limit=1000", 200)
	a.get(messages+"?state=waiting&from=1001@sip.example.com&to=2001@sip.example.com&transport=sip&limit=1", 200)
	a.get(messages+"?state=lost", 400)
	for _, id := range []string{delivered, waits, odd} {
		a.get(messages+"/"+id, 200)
	}
	const nobody = "/0190b0e0-0000-7000-8000-000000000000"
	a.get(messages+nobody, 404)
	a.get(messages+"/x", 400)
	a.post(messages+"/"+odd+"/requeue", "", 204)
	a.post(messages+"/"+waits+"/cancel", "", 204)
	for _, change := range []string{"/requeue", "/cancel"} {
		a.post(messages+"/"+delivered+change, "", 409)
		a.post(messages+nobody+change, "", 404)
		a.post(messages+"/x"+change, "", 400)
	}
	a.get("/v1/trace?message="+delivered, 200)
	a.get("/v1/trace?address=1001@sip.example.com&limit=10", 200)
	a.get("/v1/trace", 400)
	a.get("/v1/trace?message=x", 404)

	a.get("/v1/cdrs?from=2026-01-31&account=1001@sip.example.com", 200)
	a.get("/v1/cdrs?format=json", 200)
	a.get("/v1/cdrs?format=xml", 400)

	a.call("DELETE", accounts+"/1002@sip.example.com", "", "", 409)
	a.call("DELETE", accounts+"/1002@sip.example.com?force=true", "", "", 200)
	a.call("DELETE", accounts+"/1002@sip.example.com", "", "", 404)
	a.call("DELETE", accounts+"/1002@sip.example.com?force=maybe", "", "", 400)
	a.checkAnswers(stranger)
	a.checkBrokenReload()
}

// checkRewritten holds what is shown of a message that the policies rewrote: its
// addresses as they are and as they were, of which either finds it.
func (a *api) checkRewritten(id string) {
	a.t.Helper()
	for _, text := range []string{
		a.get("/v1/messages/"+id, 200),
		a.get("/v1/messages?to=992001@sip.example.com", 200),
		a.get("/v1/messages?to=2001@sip.example.com&service=short", 200),
	} {
		for _, want := range []string{
			`"id":"` + id + `"`, `"to":"2001@sip.example.com"`, `"original_to":"992001@sip.example.com"`,
			`"from":"1001@sip.example.com"`, `"sent_as":"100@sip.example.com"`,
		} {
			if !strings.Contains(text, want) {
				a.t.Errorf("%s isn't in %s", want, text)
			}
		}
	}
}

// checkRoutes compares what is described with what is served.
func (a *api) checkRoutes() {
	var described []string
	for path, item := range a.doc.Paths.Map() {
		for method := range item.Operations() {
			if strings.HasPrefix(path, "/v1/") {
				described = append(described, method+" "+path)
			}
		}
	}
	slices.Sort(described)
	if served := a.node.Routes(); !slices.Equal(described, served) {
		a.t.Errorf("described\n%s\nserved\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
}

// checkAnswers tries each operation without a token, and finds described
// answers that no request has had. Not all can be had from a server that works.
func (a *api) checkAnswers(stranger func(*http.Request)) {
	for path, item := range a.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if operation.Security == nil {
				target := strings.NewReplacer("{id}", "x", "{aor}", "x").Replace(path)
				a.call(method, target, "", "", 401, stranger)
			}
			for status := range operation.Responses.Map() {
				answer := method + " " + path + " " + status
				if !a.seen[answer] && status != "503" && status != "413" && answer != "POST /v1/reload 422" && answer != "POST /v1/cluster/handover 200" {
					a.t.Errorf("no request has had the answer %s", answer)
				}
			}
		}
	}
	if a.t.Failed() {
		a.t.Logf("seen: %v", slices.Sorted(maps.Keys(a.seen)))
	}
}

// checkBrokenReload comes last: the file stays broken.
func (a *api) checkBrokenReload() {
	if err := os.WriteFile(*a.node.load.path, []byte("nod: x\n"), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if text := a.post("/v1/reload", "", 422); !strings.Contains(text, "imgate.yaml:1: nod: unknown key; did you mean node?") {
		a.t.Error(text)
	}
	if _, err := a.node.Refresh(a.t.Context()); err == nil {
		a.t.Error("a broken file was taken")
	} else if _, ok := errors.AsType[*configError](err); !ok {
		a.t.Errorf("%T", err)
	}
}
