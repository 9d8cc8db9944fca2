package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// node is a process with the ledger in it: both plugins on one book, and an
// admin API.
type node struct {
	mux      *http.ServeMux
	accounts plugin.Accounts
	charging plugin.Charging
	metrics  *plugin.Metrics
	book     *book
}

// openNode opens the ledger at a price of 0.01 EUR, until the test ends.
func openNode(t plugintest.T, tables plugin.Tables) *node {
	t.Helper()
	n := &node{mux: http.NewServeMux(), metrics: plugin.NewMetrics()}
	env := plugin.Env{
		Instance: "ledger", Node: "test", Log: slog.New(slog.DiscardHandler),
		Tables: tables, Admin: n, Shared: &plugin.Shared{}, Metrics: n.metrics,
	}
	var err error
	if n.accounts, err = plugin.Open[plugin.Accounts](t.Context(), Accounts, env, Accounts.NewConfig()); err != nil {
		t.Fatalf("open accounts: %v", err)
	}
	if n.charging, err = plugin.Open[plugin.Charging](t.Context(), Charging, env, Charging.NewConfig()); err != nil {
		t.Fatalf("open charging: %v", err)
	}
	n.book = n.charging.(*charging).book
	t.Cleanup(func() {
		if err := errors.Join(n.charging.Close(), n.accounts.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// Handle is plugin.Admin.
func (n *node) Handle(pattern string, handler http.HandlerFunc) {
	method, path, _ := strings.Cut(pattern, " ")
	n.mux.HandleFunc(method+" /v1"+path, handler)
}

// do sends a request to the admin API.
func (n *node) do(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
	reply := httptest.NewRecorder()
	n.mux.ServeHTTP(reply, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
	return reply
}

// Call is plugin.AdminClient.
func (n *node) Call(ctx context.Context, method, path string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	reply := n.do(ctx, method, path, string(text))
	if reply.Code >= 300 {
		return refusal(reply)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(reply.Body.Bytes(), answer)
}

// refusal is the error of an answer, without what is around it.
func refusal(reply *httptest.ResponseRecorder) error {
	var told struct{ Error string }
	if err := json.Unmarshal(reply.Body.Bytes(), &told); err != nil {
		return err
	}
	return errors.New(told.Error)
}

// Stream is plugin.AdminClient.
func (n *node) Stream(ctx context.Context, method, path, _ string, body io.Reader, out io.Writer) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = io.ReadAll(body); err != nil {
			return err
		}
	}
	reply := n.do(ctx, method, path, string(text))
	if reply.Code >= 300 {
		return refusal(reply)
	}
	_, err := out.Write(reply.Body.Bytes())
	return err
}

// add adds an account and fails the test if that doesn't work.
func (n *node) add(t plugintest.T, e entry) {
	t.Helper()
	if err := n.Call(t.Context(), "POST", "/v1/accounts", e, nil); err != nil {
		t.Fatalf("add %s: %v", e.AOR, err)
	}
}

// list returns the accounts as the admin API lists them.
func (n *node) list(t plugintest.T) map[string]accountView {
	t.Helper()
	all := map[string]accountView{}
	err := eachPage(t.Context(), n, url.Values{}, func(accounts []accountView) error {
		for _, a := range accounts {
			all[a.AOR] = a
		}
		return nil
	})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return all
}

const price = plugin.Unit / 100

func TestChargingContract(t *testing.T) {
	plugintest.Charging(t, func(plugintest.T) plugintest.ChargingHarness {
		tables := plugintest.NewTables()
		var n *node
		funds := plugin.Money(0)
		return plugintest.ChargingHarness{
			Tables: tables,
			Open: func(t plugintest.T) plugin.Charging {
				n = openNode(t, tables)
				return n.charging
			},
			Fund: func(t plugintest.T, account string, units int) {
				funds = price * plugin.Money(units)
				n.add(t, entry{AOR: account, Password: "secret", Balance: funds.String()})
			},
			Paid: func(t plugintest.T, account string) int {
				return int((funds - n.list(t)[account].Balance) / price)
			},
		}
	})
}

func TestAccountsContract(t *testing.T) {
	plugintest.Accounts(t, func(plugintest.T) plugintest.AccountsHarness {
		tables := plugintest.NewTables()
		var n *node
		return plugintest.AccountsHarness{
			Open: func(t plugintest.T) plugin.Accounts {
				n = openNode(t, tables)
				return n.accounts
			},
			Add: func(t plugintest.T, aor, password string, identities ...string) {
				n.add(t, entry{AOR: aor, Password: password, Identities: identities})
			},
			Suspend: func(t plugintest.T, aor string) {
				if err := n.Call(t.Context(), "POST", accountPath(aor, "/suspend"), nil, nil); err != nil {
					t.Fatalf("suspend %s: %v", aor, err)
				}
			},
		}
	})
}

func TestConfigIsValidated(t *testing.T) {
	for _, c := range []struct {
		name   string
		config ChargingConfig
		wrong  string // the keys
	}{
		{"the defaults", *Charging.NewConfig().(*ChargingConfig), ""},
		{"free of charge", ChargingConfig{Price: 0, Currency: "USD", Retention: minRetention}, ""},
		{"a negative price", ChargingConfig{Price: -1, Currency: "EUR", Retention: minRetention}, "price"},
		{"a price beyond counting", ChargingConfig{Price: ceiling + 1, Currency: "EUR", Retention: minRetention}, "price"},
		{"no currency", ChargingConfig{Price: 1, Retention: minRetention}, "currency"},
		{"gone too soon", ChargingConfig{Currency: "EUR", Retention: minRetention - 1}, "retention"},
		{"kept for ever", ChargingConfig{Currency: "EUR", Retention: maxRetention + 1}, "retention"},
		{"everything wrong", ChargingConfig{Price: -1, Currency: "euro"}, "price currency retention"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.config.Validate()
			if (err == nil) != (c.wrong == "") {
				t.Fatalf("got %v, want complaints about %q", err, c.wrong)
			}
			for _, key := range strings.Fields(c.wrong) {
				if !strings.Contains(err.Error(), key+": expected") {
					t.Errorf("got %v, want a complaint about %s", err, key)
				}
			}
		})
	}
}

// run runs a command of the ledger's against a node and returns what it prints.
func runCommand(t *testing.T, n *node, in io.Reader, line ...string) (string, error) {
	t.Helper()
	for _, d := range []plugin.Definition{Accounts, Charging} {
		for _, command := range d.Commands {
			words := strings.Fields(command.Path)
			if len(line) < len(words) || strings.Join(line[:len(words)], " ") != command.Path {
				continue
			}
			flags := newFlagSet()
			run := command.Setup(flags)
			args, err := parseFlags(flags, line[len(words):])
			if err != nil {
				return "", err
			}
			var out bytes.Buffer
			err = run(t.Context(), plugin.Invocation{Args: args, In: in, Out: &out, Err: &out, Admin: n})
			return out.String(), err
		}
	}
	t.Fatalf("no command %q", line)
	return "", nil
}
