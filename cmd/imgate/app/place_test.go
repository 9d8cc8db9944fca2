package app

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestPlaces(t *testing.T) {
	t.Setenv("IMGATE_TRANSPORTS_A_TIMEOUT", "7s")
	text := `node: gw1
policy:
  dir: there
transports:
  a:
    plugin: sip
    domains: [a]
  a.b:
    plugin: sip
    listen:
      - udp://127.0.0.1:6060
    domains: [b]
`
	config := parse(t, text)
	for key, want := range map[string]string{
		"node":                     "imgate.yaml:1",
		"policy":                   "imgate.yaml:2",
		"policy.dir":               "imgate.yaml:3",
		"transports":               "imgate.yaml:4",
		"transports.a":             "imgate.yaml:5",
		"transports.a.timeout":     "IMGATE_TRANSPORTS_A_TIMEOUT",
		"transports.a.b":           "imgate.yaml:8",
		"transports.a.b.listen":    "imgate.yaml:10",
		"transports.a.b.listen[0]": "imgate.yaml:10",
		"transports.a.b.token":     "imgate.yaml:8",
		"storage":                  "imgate.yaml",
		"admin.listen":             "imgate.yaml",
	} {
		if got := config.Place(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	builtIn, err := loadConfig("", tinyPlugins())
	if err != nil {
		t.Fatal(err)
	}
	if got := builtIn.Place("transports.sip"); got != "built-in defaults" {
		t.Error(got)
	}
}

func TestAddressesThatTwoWant(t *testing.T) {
	for text, want := range map[string]string{
		"  a: {plugin: sip, domains: [a]}\n  b: {plugin: sip, domains: [a]}\n":                     "f:3: transports.b.listen: udp://127.0.0.1:5060 is taken by transports.a.listen (f:2)",
		"  a: {plugin: sip, domains: [a], listen: [\"ws://127.0.0.1:8060\"]}":                      "f:2: transports.a.listen: ws://127.0.0.1:8060 is taken by admin.listen",
		"  a: {plugin: sip, domains: [a], listen: [\"TCP://127.0.0.1:8060\"]}":                     "f:2: transports.a.listen: tcp://127.0.0.1:8060 is taken by admin.listen",
		"  a: {plugin: sip, domains: [a], listen: [\"udp://127.0.0.1:8060\"]}":                     "",
		"  a: {plugin: sip, domains: [a], listen: [\"udp://127.0.0.1:0\", \"udp://127.0.0.1:0\"]}": "",
	} {
		_, err := parseConfig("f", []byte("transports:\n"+text), tinyPlugins())
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s\n%v, want %s", text, err, want)
		}
	}
}

type trunkConfig struct {
	Listen string `yaml:"listen" doc:"where to listen; empty: anywhere"`
}

func (trunkConfig) Validate() error { return nil }

// TestListensAnywhere: two that listen wherever there is room don't want the same.
func TestListensAnywhere(t *testing.T) {
	trunk := plugin.DefineTransport("trunk", "a trunk", trunkConfig{},
		func(context.Context, plugin.Env, trunkConfig) (plugin.Transport, error) { return tinyTransport{}, nil })
	plugins := append(tinyPlugins(), trunk)
	if _, err := parseConfig("f", []byte("transports:\n  a: {plugin: trunk}\n  b: {plugin: trunk}\n"), plugins); err != nil {
		t.Error(err)
	}
	const same = "transports:\n  a: {plugin: trunk, listen: \"127.0.0.1:5080\"}\n  b: {plugin: trunk, listen: \"127.0.0.1:5080\"}\n"
	if _, err := parseConfig("f", []byte(same), plugins); err == nil {
		t.Error("two get the same address")
	}
}

func TestUnknownVariables(t *testing.T) {
	for name, value := range map[string]string{
		"IMGATE_NOD":                    "gw1",
		"IMGATE_TRANSPORTS_SIP_LISTN":   "s3cret",
		"IMGATE_TRANSPORTS_SPI_TIMEOUT": "7s",
		"IMGATE_ADMIN_TOKEN":            "s3cret",
		"IMGATE_LIMITS_":                "", // as if it weren't set
		"IMGATE_SERVICE_HOST":           "10.0.0.1",
		"IMGATE_NODE":                   "gw1",
	} {
		t.Setenv(name, value)
	}
	c, err := parseConfiguration("f", []byte(issueYAML), tinyPlugins())
	if err != nil {
		t.Fatal(err)
	}
	const unknown = "the environment variable %s stands for no key of this configuration"
	want := []string{
		strings.Replace(unknown, "%s", "IMGATE_ADMIN_TOKEN", 1),
		strings.Replace(unknown, "%s", "IMGATE_NOD", 1) + ": did you mean IMGATE_NODE?",
		strings.Replace(unknown, "%s", "IMGATE_TRANSPORTS_SIP_LISTN", 1) + ": did you mean IMGATE_TRANSPORTS_SIP_LISTEN?",
		strings.Replace(unknown, "%s", "IMGATE_TRANSPORTS_SPI_TIMEOUT", 1) + ": did you mean IMGATE_TRANSPORTS_SIP_TIMEOUT?",
	}
	if !slices.Equal(c.warnings, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(c.warnings, "\n"), strings.Join(want, "\n"))
	}
	got := imgate(t.Context(), tinyPlugins(), "check", "--config", write(t, "c.yaml", issueYAML))
	if got.status != exitOK || !strings.Contains(got.err, "warning: "+want[0]) {
		t.Errorf("%+v", got)
	}
}

// withLadder has the observer that is usual, and another one.
func withLadder() []plugin.Definition {
	open := func(context.Context, plugin.Env, none) (plugin.Observer, error) { return tinyObserver{}, nil }
	return append(tinyPlugins(),
		plugin.DefineObserver("ladder", "", none{}, open), plugin.DefineObserver("hep", "", none{}, open))
}

type tinyObserver struct{}

func (tinyObserver) Packet(*plugin.Packet) {}
func (tinyObserver) Step(*plugin.Step)     {}
func (tinyObserver) Close() error          { return nil }

func TestObservers(t *testing.T) {
	names := func(text string, plugins []plugin.Definition) (all []string) {
		c, err := parseConfig("f", []byte(issueYAML+text), plugins)
		if err != nil {
			return []string{err.Error()}
		}
		for _, i := range c.Observers {
			all = append(all, i.Name+" "+i.Plugin.Name)
		}
		return all
	}
	for _, c := range []struct {
		text    string
		plugins []plugin.Definition
		want    []string
	}{
		{"", tinyPlugins(), nil},
		{"", withLadder(), []string{"trace ladder"}},
		{"observers: {}", withLadder(), nil},
		{"observers:", withLadder(), nil},
		{"observers: {homer: {plugin: hep}, trace: {plugin: ladder}}", withLadder(), []string{"homer hep", "trace ladder"}},
		{"observers: {hep: {}}", withLadder(), []string{"hep hep"}},
		{"observers: {homer: {}}", withLadder(), []string{`f:14: observers.homer.plugin: unknown observer plugin "homer"; expected one of hep, ladder`}},
		{"observers: {homer: {plugin: sip}}", tinyPlugins(), []string{`f:14: observers.homer.plugin: unknown observer plugin "sip"; this build has none`}},
	} {
		if got := names(c.text, c.plugins); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
}

// pushSettings are those of a pusher.
type pushSettings struct {
	URL string `yaml:"url"`
}

// Validate is plugin.Config.
func (s pushSettings) Validate() error {
	if s.URL == "" {
		return &plugin.InvalidKey{Key: "url", Expected: "a URL"}
	}
	return nil
}

// TestPush: nobody wakes apps unless the file or the environment says who.
func TestPush(t *testing.T) {
	open := func(context.Context, plugin.Env, pushSettings) (plugin.Pusher, error) { return nil, nil }
	plugins := append(tinyPlugins(), plugin.DefinePush("webhook", "", pushSettings{}, open), plugin.DefinePush("other", "", pushSettings{URL: "u"}, open))
	for _, c := range []struct {
		text, variable, want string
	}{
		{"", "", " "},
		{"push: {url: a}", "", "webhook a"},
		{"push: {plugin: webhook, url: a}", "", "webhook a"},
		{"push: {plugin: other}", "", "other u"},
		{"", "other", "other u"},
		{"push: {url: a}", "other", "other a"},
		{"push: {}", "", "f:14: push.url: expected a URL"},
		{"push:", "", "f:14: push.url: expected a URL"},
		{"push: {plugin: sip}", "", `f:14: push.plugin: unknown push plugin "sip"; expected one of other, webhook`},
		{"push: {url: a, keys: 1}", "", `f:14: push.keys: unknown key; expected one of url, plugin`},
	} {
		t.Run(c.text+" "+c.variable, func(t *testing.T) {
			t.Setenv("IMGATE_PUSH_PLUGIN", c.variable)
			config, err := parseConfig("f", []byte(issueYAML+c.text), plugins)
			got := config.Push.Plugin.Name + " "
			if settings, ok := config.Push.Settings.(*pushSettings); ok {
				got += settings.URL
			}
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLimitsAndRetention(t *testing.T) {
	config := parse(t, issueYAML)
	if l := config.Limits; l.Messages != 1_000_000 || l.PerRecipient != 10_000 || l.Contacts != 64 {
		t.Errorf("%+v", l)
	}
	if config.Retention != 168*time.Hour || config.Notifications != 168*time.Hour {
		t.Errorf("%v, %v", config.Retention, config.Notifications)
	}
	config = parse(t, issueYAML+"limits: {messages: 7, per_recipient: 3, contacts: 2}\nretention: 1h\nimdn: {ttl: 2h}\n")
	if l := config.Limits; l.Messages != 7 || l.PerRecipient != 3 || l.Contacts != 2 {
		t.Errorf("%+v", l)
	}
	if config.Retention != time.Hour || config.Notifications != 2*time.Hour {
		t.Errorf("%v, %v", config.Retention, config.Notifications)
	}
	for text, want := range map[string]string{
		"limits: {messages: 0}":       "limits.messages: expected a number from 1 to 100000000",
		"limits: {per_recipient: -1}": "limits.per_recipient: expected a number from 1 to",
		"limits: {contacts: 1025}":    "limits.contacts: expected a number from 1 to 1024",
		"retention: 59s":              "retention: expected a time from 15m0s to 87600h0m0s",
		"imdn: {ttl: 59s}":            "imdn.ttl: expected a time from 1m0s to 720h0m0s",
		"imdn: {ttl: 721h}":           "imdn.ttl: expected a time from 1m0s to 720h0m0s",
	} {
		_, err := parseConfig("f", []byte(issueYAML+text), tinyPlugins())
		if err == nil || !strings.HasPrefix(err.Error(), "f:14: "+want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// What a start fails of is told with its place, and nothing before it.
func TestStartErrorsHaveAPlace(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("blocked", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for from, c := range map[string]struct{ to, want string }{
		`"127.0.0.1:8060"`: {`"` + taken.Addr().String() + `"`, ":8: admin.listen: admin: listen tcp " + taken.Addr().String() + ": bind: address already in use\n"},
		"./imgate-data":    {"./blocked/data", ":3: data_dir: mkdir ./blocked: not a directory\n"},
		"./policies":       {"broken", ":5: policy: policy plugin \"rego\": broken/a.rego:3: rego_parse_error: unexpected eof\n"},
	} {
		path := write(t, filepath.Base(t.Name())+".yaml", strings.ReplaceAll(strings.Replace(issueYAML, from, c.to, 1), "127.0.0.1:8060", "127.0.0.1:0"))
		got := imgate(t.Context(), tinyPlugins(), "serve", "--config", path)
		if got.status != exitError || got.err != path+c.want {
			t.Errorf("%+v, want %s%s", got, path, c.want)
		}
	}
}
