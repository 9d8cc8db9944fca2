package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Tiny plugins under the names that the built-in configuration has: enough of
// each to be configured, and opened by the engine.

type none struct{}

func (none) Validate() error { return nil }

type sipConfig struct {
	Listen  []string      `yaml:"listen"`
	Domains []string      `yaml:"domains"`
	Timeout time.Duration `yaml:"timeout"`
	Pause   time.Duration `yaml:"pause"`
	Retries int           `yaml:"retries"`
	Port    uint16        `yaml:"port"`
	Ratio   float64       `yaml:"ratio"`
	Verbose bool          `yaml:"verbose"`
	Limits  struct {
		Body int `yaml:"body"`
	} `yaml:"limits"`
	Labels map[string]string `yaml:"labels"`
	Rules  []sipRule         `yaml:"rules"`
	Token  string            `yaml:"token"`
	Target *message.Address  `yaml:"target"`
}

type sipRule struct {
	To   message.Address `yaml:"to"`
	Cost plugin.Money    `yaml:"cost"`
}

func (c sipConfig) Validate() error {
	var errs []error
	if len(c.Domains) == 0 {
		errs = append(errs, &plugin.InvalidKey{Key: "domains", Expected: "at least one domain"})
	}
	if c.Limits.Body < 0 {
		errs = append(errs, &plugin.InvalidKey{Key: "limits.body", Expected: "a size that is not negative"})
	}
	if slices.Contains(c.Listen, "") {
		errs = append(errs, &plugin.InvalidKey{Key: "listen[0]", Expected: "an address"})
	}
	return errors.Join(errs...)
}

type policyConfig struct {
	Dir string `yaml:"dir"`
}

func (c policyConfig) Validate() error { return nil }

type chargingConfig struct {
	Price plugin.Money `yaml:"price"`
}

func (c chargingConfig) Validate() error {
	if c.Price < 0 {
		return errors.New("a price below zero")
	}
	return nil
}

var sipDefaults = sipConfig{
	Listen:  []string{"udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"},
	Timeout: 5 * time.Second,
	Labels:  map[string]string{"built": "in"},
}

func tinyPlugins() []plugin.Definition {
	return []plugin.Definition{
		plugin.DefineTransport("sip", "SIP over UDP", sipDefaults,
			func(context.Context, plugin.Env, sipConfig) (plugin.Transport, error) { return tinyTransport{}, nil }).With(sayCommand),
		plugin.DefineTransport("loop", "gives back what it is given", none{},
			func(context.Context, plugin.Env, none) (plugin.Transport, error) { return tinyTransport{}, nil }),
		plugin.DefineStorage("pebble", "files on disk", none{},
			func(context.Context, plugin.Env, none) (plugin.Storage, error) {
				return &tinyStorage{lease: plugin.NewLocalLease(0)}, nil
			}),
		plugin.DefineStorage("memory", "nothing on disk", none{},
			func(context.Context, plugin.Env, none) (plugin.Storage, error) {
				return &tinyStorage{lease: plugin.NewLocalLease(0)}, nil
			}),
		plugin.DefinePolicy("rego", "Rego policies", policyConfig{},
			func(_ context.Context, _ plugin.Env, c policyConfig) (plugin.PolicySource, error) {
				if c.Dir == "broken" {
					return nil, errors.New("broken/a.rego:3: rego_parse_error: unexpected eof")
				}
				if c.Dir == "careless" {
					return warning{plugin.Always("1", tinyPolicy{})}, nil
				}
				return plugin.Always("1", tinyPolicy{}), nil
			}),
		plugin.DefineAccounts("ledger", "accounts on our own books", none{},
			func(_ context.Context, env plugin.Env, _ none) (plugin.Accounts, error) {
				env.Admin.Handle("POST /accounts", func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusNoContent)
				})
				return tinyAccounts{}, nil
			}).With(tinyCommand("account add", "ADDRESS"), tinyCommand("account list", "")),
		plugin.DefineCharging("ledger", "prepaid balances", chargingConfig{Price: plugin.Unit / 100},
			func(context.Context, plugin.Env, chargingConfig) (plugin.Charging, error) { return tinyCharging{}, nil }),
	}
}

// sayCommand prints how it was called.
var sayCommand = plugin.Command{
	Path: "say", Args: "WORD...", Short: "say something",
	Setup: func(flags *flag.FlagSet) plugin.Run {
		password := flags.String("password", "", "the `secret`")
		loud := flags.Bool("loud", false, "in capitals")
		return func(ctx context.Context, in plugin.Invocation) error {
			if slices.Contains(in.Args, "fail") {
				return errors.New("nothing to say")
			}
			if slices.Contains(in.Args, "hang") { // and doesn't do as it is told
				fmt.Fprintln(in.Out, "hanging")
				<-ctx.Done()
				fmt.Fprintln(in.Out, "told")
				time.Sleep(time.Minute)
			}
			if slices.Contains(in.Args, "wait") {
				<-ctx.Done()
				return fmt.Errorf("waiting: %w", ctx.Err())
			}
			domains := in.Settings.(*sipConfig).Domains
			_, err := fmt.Fprintln(in.Out, in.Args, *password, *loud, domains)
			return err
		}
	},
}

// tinyCommand asks the admin API for /v1/ and its own path.
func tinyCommand(path, args string) plugin.Command {
	return plugin.Command{
		Path: path, Args: args, Short: "do " + path,
		Setup: func(*flag.FlagSet) plugin.Run {
			return func(ctx context.Context, in plugin.Invocation) error {
				var answer struct{ Name string }
				if err := in.Admin.Call(ctx, "POST", "/v1/"+strings.ReplaceAll(path, " ", "/"), in.Args, &answer); err != nil {
					return err
				}
				_, err := fmt.Fprintln(in.Out, answer.Name)
				return err
			}
		},
	}
}

type tinyTransport struct{}

func (tinyTransport) Serve(ctx context.Context, gate plugin.Gate) error {
	gate.Ready()
	<-ctx.Done()
	return nil
}

func (tinyTransport) Send(context.Context, *message.Message, plugin.Route) (plugin.Receipt, error) {
	return plugin.Receipt{}, message.Fail(message.Internal, "tiny")
}

type tinyPolicy struct{}

func (tinyPolicy) Decide(context.Context, plugin.Question, plugin.Supply) (plugin.Plan, error) {
	return plugin.DefaultPlan(), nil
}

type tinyAccounts struct{}

func (tinyAccounts) Verify(context.Context, plugin.Credentials) (plugin.Account, error) {
	return plugin.Account{}, message.Fail(message.Unauthenticated, "tiny")
}

func (tinyAccounts) Lookup(context.Context, message.Address) (plugin.Account, error) {
	return plugin.Account{}, message.Fail(message.UnknownRecipient, "tiny")
}
func (tinyAccounts) Close() error { return nil }

type tinyCharging struct{}

func (tinyCharging) Authorize(context.Context, plugin.Request) (plugin.Authorization, error) {
	return plugin.Authorization{}, nil
}

func (tinyCharging) Settle(context.Context, []plugin.Record) ([]plugin.Change, error) {
	return nil, nil
}
func (tinyCharging) Close() error { return nil }

// tinyStorage keeps rows in memory.
type tinyStorage struct {
	mu    sync.Mutex
	lease *plugin.LocalLease
	rows  []plugin.Change // in order
}

func compareRows(a, b plugin.Change) int {
	return cmp.Or(strings.Compare(a.Table, b.Table), bytes.Compare(a.Key, b.Key))
}

func (s *tinyStorage) Apply(_ context.Context, _ plugin.Fence, changes []plugin.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(s.rows, c, compareRows)
		if found {
			s.rows = slices.Delete(s.rows, i, i+1)
		}
		if c.Value != nil {
			s.rows = slices.Insert(s.rows, i, c)
		}
	}
	return nil
}

func (s *tinyStorage) Scan(_ context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []plugin.Change
	for _, c := range s.rows {
		inside := c.Table == table && bytes.Compare(c.Key, from) >= 0 && (to == nil || bytes.Compare(c.Key, to) < 0)
		if inside && len(found) < n {
			found = append(found, c)
		}
	}
	return found, nil
}

func (s *tinyStorage) Acquire(_ context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	return s.lease.Acquire(node, ttl, func(plugin.Fence) error { return nil })
}
func (s *tinyStorage) Renew(_ context.Context, f plugin.Fence, ttl time.Duration) error {
	return s.lease.Renew(f, ttl)
}
func (s *tinyStorage) Release(_ context.Context, f plugin.Fence) error {
	s.lease.Release(f)
	return nil
}
func (s *tinyStorage) Handover(_ context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	return s.lease.Handover(f, to, ttl)
}
func (s *tinyStorage) Lease(context.Context) (plugin.Lease, error) { return s.lease.Lease(), nil }
func (s *tinyStorage) Attend(_ context.Context, node, note string) ([]plugin.Attendant, error) {
	return s.lease.Attend(node, note), nil
}
func (s *tinyStorage) Close() error { return nil }
