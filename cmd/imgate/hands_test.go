//go:build process

package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// oddUser is what a stranger would call itself to take over a terminal: escape
// sequences of C1, which UTF-8 lets through, and a change of direction.
const oddUser = "x\u009b2J\u009b31m\u202egnp"

// TestHands puts the commands into clumsy hands and the admin API into a
// stranger's.
func TestHands(t *testing.T) {
	s := newServerWith(t, "  echo: {plugin: loop}\n")
	givePolicies(t, s, operatorsPolicies)
	s.start()
	s.importAccounts([]string{"alice", "bob"})
	alice := dial(t, s, "alice", func(ua.Incoming) bool { return true })
	defer alice.Close()
	register(t, alice)
	if answer := sayTo(t, alice, message.Address{User: oddUser, Host: "partner.example.net"}, secretText); answer.Code >= 300 {
		t.Fatalf("a message to an odd address is answered %+v", answer)
	}
	expect(t, alice, "bob", secretText, 202)

	t.Run("terminal", func(t *testing.T) { checkTerminal(t, s) })
	t.Run("json", func(t *testing.T) { checkJSON(t, s) })
	t.Run("status", func(t *testing.T) { checkStatus(t, s) })
	t.Run("stranger", func(t *testing.T) { checkStranger(t, s) })
	t.Run("reload storm", func(t *testing.T) { checkReloadStorm(t, s, alice) })
}

// checkTerminal: what a stranger wrote moves no cursor.
func checkTerminal(t *testing.T, s *server) {
	for _, args := range []string{
		"message list", "message list --output json", "trace alice@sip.example.com", "trace alice@sip.example.com --output json",
		"trace alice@sip.example.com --output svg", "top --once", "status", "account list",
	} {
		out := s.imgate(strings.Fields(args)...)
		if strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
			t.Errorf("imgate %s prints what a terminal acts upon: %q", args, out)
		}
	}
	if out := s.imgate("message", "list"); !strings.Contains(out, "partner.example.net") {
		t.Errorf("the message isn't listed:\n%s", out)
	}
}

// checkJSON: programs can read what is printed for them.
func checkJSON(t *testing.T, s *server) {
	for _, args := range []string{
		"message list", "account list", "account show alice@sip.example.com", "account suspend bob@sip.example.com",
		"account resume bob@sip.example.com", "account credit bob@sip.example.com 1.00", "cdr export", "status",
		"trace alice@sip.example.com", "account add carol@sip.example.com", "account delete carol@sip.example.com",
	} {
		out := s.imgate(append(strings.Fields(args), "--output", "json")...)
		values := 0
		decoder := json.NewDecoder(strings.NewReader(out))
		for {
			var value any
			err := decoder.Decode(&value)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("imgate %s --output json prints no JSON: %v\n%s", args, err, out)
				break
			}
			values++
		}
		if values == 0 {
			t.Errorf("imgate %s --output json prints nothing", args)
		}
	}
}

// checkStatus: 0 is done, 1 couldn't be done, 2 was called wrongly; only what is
// done prints, and what isn't says why.
func checkStatus(t *testing.T, s *server) {
	for args, want := range map[string]int{
		"status": 0, "health": 0, "health --live": 0, "check": 0, "plugins": 0, "version": 0, "message list": 0, "--help": 0, "account credit --help": 0,

		"account show nobody@sip.example.com":                            1,
		"account import nofile.csv":                                      1,
		"account delete alice@sip.example.com":                           1,
		"account credit alice@sip.example.com -- -1000":                  1,
		"message show 01890a5d-ac96-774b-bcce-b302099a8057":              1,
		"message cancel 01890a5d-ac96-774b-bcce-b302099a8057":            1,
		"send alice@sip.example.com bob@sip.example.com hi --password x": 1,
		"trace nobody@sip.example.com":                                   1,

		"nonsense": 2, "account": 0, "account nonsense": 2, "account show": 2, "account list more": 2, "account list --output xml": 2,
		"account credit alice@sip.example.com much": 2, "account list --active --suspended": 2, "message list --state odd": 2,
		"message list --limit -1": 2, "message cancel": 2, "message cancel --all": 2, "message cancel --state waiting --all": 2,
		"trace": 2, "trace --limit 0 alice@sip.example.com": 2, "cdr export --from yesterday": 2, "completion tcsh": 2, "status --nonsense": 2,
	} {
		out, said, status := s.try(strings.Fields(args)...)
		if status != want {
			t.Errorf("imgate %s: exit status %d, want %d\n%s%s", args, status, want, out, said)
		}
		if want > 0 && (out != "" || said == "") {
			t.Errorf("imgate %s fails, prints %q and says %q", args, out, said)
		}
	}
}

// checkStranger: who has no token learns nothing, and a good caller is served
// meanwhile.
func checkStranger(t *testing.T, s *server) {
	get := func(method, path, host, token string) (status int, text string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.admin, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Opaque = path // as it is written
		request.Host = host
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200,
		"/v1/messages": 401, "/v1/none": 401, "/v1/../metrics": 401, "/v1/../v1/messages": 401, "/%761/messages": 401,
		"/metrics/../v1/messages": 404, "/V1/messages": 404, "/": 404, "/debug/pprof/": 404,
		"/v1/messages?" + strings.Repeat("a", 14_000): 401,
	} {
		status, text := get("GET", path, s.admin, "")
		if status != want {
			t.Errorf("%.40s is answered %d, want %d", path, status, want)
		}
		for _, private := range []string{"alice", "bob", "partner.example.net", s.config, filepath.Dir(s.config), secretText} {
			if strings.Contains(text, private) {
				t.Errorf("%.40s tells a stranger of %s", path, private)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"} {
		if status, _ := get(method, "/metrics", s.admin, ""); status != 405 {
			t.Errorf("%s /metrics is answered %d", method, status)
		}
	}
	if status, _ := get("GET", "/metrics", "evil.example", ""); status != 421 {
		t.Errorf("a foreign name is answered %d", status)
	}
	token, err := os.ReadFile(filepath.Join(filepath.Dir(s.config), "data", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	good := strings.TrimSpace(string(token))
	for _, wrong := range []string{"", " ", good[:len(good)-1], good + "x", strings.ToLower(good), "Bearer " + good, strings.Repeat("x", 10_000)} {
		if status, _ := get("GET", "/v1/messages", s.admin, wrong); status != 401 {
			t.Errorf("the token %.20q is answered %d", wrong, status)
		}
	}
	if strings.Contains(s.logged(), good) {
		t.Error("the token is in the log")
	}
	for _, path := range []string{
		"/v1/messages?limit=99999999999999999999", "/v1/messages?limit=0", "/v1/messages?limit=1&limit=2", "/v1/messages?after=x",
		"/v1/messages?from=%00", "/v1/messages?from=" + strings.Repeat("a", 5000), "/v1/messages?nonsense=1", "/v1/messages?a;b", "/v1/messages?%zz",
		"/v1/messages/..%2f..%2fstatus", "/v1/trace", "/v1/trace?address=%1b@x", "/v1/trace?address=a@b&limit=99999", "/v1/accounts/%00",
		"/v1/accounts?limit=-1", "/v1/accounts?suspended=perhaps", "/v1/cdrs?from=%0a", "/v1/cdrs?format=xml", "/v1/status?x=1",
	} {
		if status, text := get("GET", path, s.admin, good); status != 400 || !strings.HasPrefix(text, `{"error":`) {
			t.Errorf("%.50s is answered %d %.100s", path, status, text)
		}
	}
}

// checkReloadStorm: however many ask at once, each is answered, and messages go
// on.
func checkReloadStorm(t *testing.T, s *server, alice *ua.Agent) {
	token, err := os.ReadFile(filepath.Join(filepath.Dir(s.config), "data", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	var storm sync.WaitGroup
	for range 50 {
		storm.Go(func() {
			request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.admin+"/v1/reload", nil)
			if err != nil {
				t.Error(err)
				return
			}
			request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
			answer, err := (&http.Client{Timeout: time.Minute}).Do(request)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if answer.StatusCode != 200 {
				t.Errorf("a reload is answered %d", answer.StatusCode)
			}
		})
	}
	expect(t, alice, "bob", secretText, 202)
	storm.Wait()
}
