package app

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// issueYAML is the configuration that is promised to work.
const issueYAML = `
node: gw1
data_dir: ./imgate-data
storage:  {plugin: pebble}
policy:   {plugin: rego, dir: ./policies}      # without dir: the policies built in
accounts: {plugin: ledger}
charging: {plugin: ledger}
admin:    {listen: "127.0.0.1:8060"}
transports:
  sip:
    plugin: sip
    listen: ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]
    domains: [sip.example.com]
`

func parse(t *testing.T, text string) engine.Config {
	t.Helper()
	config, err := parseConfig("imgate.yaml", []byte(text), tinyPlugins())
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func sipOf(t *testing.T, config engine.Config, name string) sipConfig {
	t.Helper()
	for _, instance := range config.Transports {
		if instance.Name == name {
			return *instance.Settings.(*sipConfig)
		}
	}
	t.Fatalf("no transport %q", name)
	return sipConfig{}
}

func TestPromisedConfiguration(t *testing.T) {
	config := parse(t, issueYAML)
	if config.Node != "gw1" || config.DataDir != "./imgate-data" || config.AdminListen != "127.0.0.1:8060" {
		t.Errorf("%+v", config)
	}
	for instance, want := range map[*engine.Instance]string{
		&config.Storage: "pebble", &config.Policy: "rego", &config.Accounts: "ledger", &config.Charging: "ledger",
	} {
		if instance.Plugin.Name != want || instance.Name != string(instance.Plugin.Kind) || instance.Settings == nil {
			t.Errorf("%+v, want plugin %s", instance, want)
		}
	}
	if dir := config.Policy.Settings.(*policyConfig).Dir; dir != "./policies" {
		t.Errorf("policy.dir %q", dir)
	}
	want := sipDefaults
	want.Listen, want.Domains = []string{"udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"}, []string{"sip.example.com"}
	if got := sipOf(t, config, "sip"); !reflect.DeepEqual(got, want) {
		t.Errorf("sip: %+v\nwant %+v", got, want)
	}
}

func TestBuiltInConfiguration(t *testing.T) {
	config, err := loadConfig("", tinyPlugins())
	if err != nil {
		t.Fatal(err)
	}
	promised := parse(t, issueYAML)
	promised.Node = hostname()
	promised.Policy.Settings.(*policyConfig).Dir = ""
	if got, want := describe(config), describe(promised); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	// The same again from a file with the transports alone.
	_, transports, _ := strings.Cut(string(builtIn), "transports:")
	if got, want := describe(parse(t, "transports:"+transports)), describe(config); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// describe prints everything but functions.
func describe(config engine.Config) string {
	var out bytes.Buffer
	writeBanner(&out, config, "")
	for _, i := range append([]engine.Instance{config.Storage, config.Policy, config.Accounts, config.Charging}, config.Transports...) {
		out.WriteString(i.Name + " " + i.Plugin.Name + " ")
		out.WriteString(strings.TrimSpace(fmt.Sprintf("%+v", i.Settings)) + "\n")
	}
	return out.String()
}

func TestEveryKindOfValue(t *testing.T) {
	content, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := parse(t, string(content))
	if len(config.Transports) != 2 || config.Transports[0].Name != "sip" || config.Transports[1].Name != "vendor1" {
		t.Fatalf("transports: %+v", config.Transports)
	}
	want := sipConfig{
		Listen: []string{}, Domains: []string{"Sub.Example.com"}, Timeout: 90 * time.Second, Retries: 3, Port: 5060,
		Ratio: 0.5, Verbose: true, Labels: map[string]string{"sub.example.com": "1001", "other": "x"}, Token: "012345",
		Rules: []sipRule{
			{To: message.Address{User: "a", Host: "example.com"}},
			{To: message.Address{User: "b", Host: "example.com"}, Cost: 1},
		},
	}
	want.Limits.Body = 65536
	if got := sipOf(t, config, "vendor1"); !reflect.DeepEqual(got, want) {
		t.Errorf("vendor1: %+v\nwant %+v", got, want)
	}
	if got := sipOf(t, config, "sip").Listen; !reflect.DeepEqual(got, sipDefaults.Listen) {
		t.Errorf("sip.listen %q: the default has changed", got)
	}
	if price := config.Charging.Settings.(*chargingConfig).Price; price != plugin.Unit/10 {
		t.Errorf("price %v", price)
	}
}

// A list that is laid over a default one must not reach into the default.
func TestDefaultsStayAsTheyAre(t *testing.T) {
	definition := tinyPlugins()
	for range 2 {
		text := "transports: {sip: {listen: [changed], domains: [d], labels: {a: b}}}"
		if _, err := parseConfig("f", []byte(text), definition); err != nil {
			t.Fatal(err)
		}
	}
	fresh := definition[0].NewConfig().(*sipConfig)
	if fresh.Listen[0] != "udp://127.0.0.1:5060" || len(fresh.Labels) != 1 {
		t.Errorf("the defaults are now %+v", fresh)
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	content, err := os.ReadFile("testdata/mistakes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	content = bytes.ReplaceAll(content, []byte("*sip"), []byte("[a]")) // an alias without its anchor isn't YAML
	_, err = parseConfig("imgate.yaml", content, tinyPlugins())
	if _, ok := errors.AsType[*configError](err); !ok {
		t.Fatalf("%T %v", err, err)
	}
	golden(t, "mistakes.golden", err.Error()+"\n")
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "f: transports: expected at least one"},
		{"comments alone", "# nothing\n", "f: transports: expected at least one"},
		{"no transports", "transports: {}", "f:1: transports: expected at least one"},
		{"a list", "- a", "f:1: expected a section, that is keys with values; found a list"},
		{"not YAML", "a:\n  b: [", "f:2: not valid YAML: "},
		{"tabs", "a:\n\tb: c", "f:2: not valid YAML: "},
		{"two documents", issueYAML + "---\na: b\n", "f:14: not valid YAML: expected one document"},
		{"an anchor", "data_dir: &x a\nnode: *x\n", "f:2: node: expected the value itself; references with * aren't followed"},
		{"an anchored section", "storage: &x {plugin: pebble}\npolicy: *x\n", "f:2: policy: expected a section, that is keys with values; found a reference with *"},
		{"merged", "transports:\n  sip:\n    <<: {a: b}\n    domains: [a]\n", "f:3: transports.sip: expected plain words as keys"},
		{"a control character", "\"no\\x1fde\": a\n", "f:1: expected plain words as keys"},
		{"a key that is a list", "? [a]\n: b\n", "f:1: expected plain words as keys; found a list"},
		{"upper case", "Node: gw1\n", "f:1: Node: unknown key; did you mean node? expected one of node, data_dir, admin, limits, zone, retention, imdn, storage"},
		{"exact duplicate", "node: a\nnode: b\n", "f:2: node: given twice; the first is in line 1"},
		{"bad node", "node: a b\n", "f:1: node: expected a name"},
		{"null", "node:\n", "f:1: node: expected a text, in quotes if it looks like something else; found nothing"},
		{"empty data_dir", "data_dir: \"\"\n", "f:1: data_dir: expected a directory"},
		{"no plugin of that name", "transports:\n  vendor: {}\n", `f:2: transports.vendor.plugin: unknown transport plugin "vendor"; expected one of loop, sip`},
		{"instance's name", "transports:\n  -x: {plugin: sip}\n", "f:2: transports.-x: expected a name"},
		{"plugin is a number", "storage: {plugin: 5}\n", "f:1: storage.plugin: expected a text"},
		{"wrong kind", "storage: {plugin: ledger}\n", `f:1: storage.plugin: unknown storage plugin "ledger"; expected one of memory, pebble`},
		{"price with a comma", "charging:\n  price: 1,00\n", "f:2: charging.price: not an amount"},
		{"refused as a whole", "charging:\n  price: -1\n", "f:1: charging: a price below zero"},
		{"empty item in a list", "transports:\n  sip:\n    domains: [a]\n    listen: [\"\"]\n", "f:4: transports.sip.listen[0]: expected an address"},
		{"custom type", "node: !secret a\n", "f:1: node: expected a text, in quotes if it looks like something else; found a value of type !secret"},
		{"a key of a struct in a list", "transports:\n  sip:\n    domains: [a]\n    rules:\n    - to: a@b\n      cst: 1\n", "f:6: transports.sip.rules[0].cst: unknown key; did you mean cost? expected one of to, cost"},
		{"an empty table", "transports:\n  sip:\n    domains: [a]\n    labels: {}\n", "f:4: transports.sip.labels: expected at least one entry"},
		{"nothing to say", "storage: {bogus: 1}\n", "f:1: storage.bogus: unknown key; expected one of plugin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("f", []byte(c.text), tinyPlugins())
			if err == nil || !hasLine(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func hasLine(text, prefix string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

func TestSecretsAreNotInErrors(t *testing.T) {
	text := "transports:\n  sip:\n    domains: [a]\n    token: 4711\n    timeout: s3cret\n    port: s3cret\n"
	_, err := parseConfig("f", []byte(text), tinyPlugins())
	if err == nil || strings.Contains(err.Error(), "4711") || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"IMGATE_NODE":                          "gw2",
		"IMGATE_DATA_DIR":                      "/data",
		"IMGATE_ADMIN_LISTEN":                  "127.0.0.1:9999",
		"IMGATE_STORAGE_PLUGIN":                "memory",
		"IMGATE_CHARGING_PRICE":                "0.03",
		"IMGATE_POLICY_DIR":                    "", // as if it weren't set
		"IMGATE_TRANSPORTS_SIP_TIMEOUT":        "7s",
		"IMGATE_TRANSPORTS_SIP_LIMITS_BODY":    "99",
		"IMGATE_TRANSPORTS_SIP_VERBOSE":        "true",
		"IMGATE_TRANSPORTS_SIP_TARGET":         "1001@example.com",
		"IMGATE_TRANSPORTS_SIP_LISTEN":         "udp://0.0.0.0:5060, udp://[::]:5060",
		"IMGATE_SERVICE_HOST":                  "10.0.0.1", // Kubernetes
		"IMGATE_TRANSPORTS_SIP_NOT_A_KEY":      "ignored",
		"IMGATE_TRANSPORTS_SIP_LABELS_EXAMPLE": "ignored",
	} {
		t.Setenv(name, value)
	}
	config := parse(t, issueYAML)
	if config.Node != "gw2" || config.DataDir != "/data" || config.AdminListen != "127.0.0.1:9999" || config.Storage.Plugin.Name != "memory" {
		t.Errorf("%+v", config)
	}
	if price := config.Charging.Settings.(*chargingConfig).Price; price != plugin.Unit*3/100 {
		t.Errorf("price %v", price)
	}
	if dir := config.Policy.Settings.(*policyConfig).Dir; dir != "./policies" {
		t.Errorf("policy.dir %q", dir)
	}
	want := sipDefaults
	want.Domains, want.Timeout, want.Verbose, want.Limits.Body = []string{"sip.example.com"}, 7*time.Second, true, 99
	want.Listen = []string{"udp://0.0.0.0:5060", "udp://[::]:5060"}
	want.Target = &message.Address{User: "1001", Host: "example.com"}
	if got := sipOf(t, config, "sip"); !reflect.DeepEqual(got, want) {
		t.Errorf("sip: %+v\nwant %+v", got, want)
	}
}

func TestMistakesInTheEnvironment(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"IMGATE_NODE", "a b", "IMGATE_NODE: node: expected a name"},
		{"IMGATE_ADMIN_LISTEN", "8060", "IMGATE_ADMIN_LISTEN: admin.listen: expected host:port"},
		{"IMGATE_STORAGE_PLUGIN", "memry", `IMGATE_STORAGE_PLUGIN: storage.plugin: unknown storage plugin "memry"; did you mean memory?`},
		{"IMGATE_TRANSPORTS_SIP_TIMEOUT", "7", "IMGATE_TRANSPORTS_SIP_TIMEOUT: transports.sip.timeout: expected a duration with a unit"},
		{"IMGATE_TRANSPORTS_SIP_VERBOSE", "yes", "IMGATE_TRANSPORTS_SIP_VERBOSE: transports.sip.verbose: expected true or false"},
		{"IMGATE_TRANSPORTS_SIP_LIMITS_BODY", "-1", "IMGATE_TRANSPORTS_SIP_LIMITS_BODY: transports.sip.limits.body: expected a size"},
		{"IMGATE_TRANSPORTS_SIP_LISTEN", ",a", "IMGATE_TRANSPORTS_SIP_LISTEN: transports.sip.listen[0]: expected an address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			_, err := parseConfig("f", []byte(issueYAML), tinyPlugins())
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestOneVariableForTwoKeys(t *testing.T) {
	t.Setenv("IMGATE_TRANSPORTS_A_B_TIMEOUT", "7s")
	text := "transports:\n  a-b: {plugin: sip, domains: [a]}\n  a_b: {plugin: sip, domains: [a]}\n"
	_, err := parseConfig("f", []byte(text), tinyPlugins())
	if err == nil || !strings.Contains(err.Error(), "stands for this key and for transports.a-b.timeout") {
		t.Error(err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	directory := t.TempDir()
	long := filepath.Join(directory, "long.yaml")
	if err := os.WriteFile(long, bytes.Repeat([]byte("#"), maxConfig+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(directory, "absent.yaml"): "no such file",
		directory:                               "is a directory",
		long:                                    "has more than",
	} {
		if _, err := loadConfig(path, tinyPlugins()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// Whatever the file says, reading it ends, and with a configuration or errors.
func FuzzConfig(f *testing.F) {
	mistakes, err := os.ReadFile("testdata/mistakes.yaml")
	if err != nil {
		f.Fatal(err)
	}
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(issueYAML))
	f.Add(mistakes)
	f.Add(full)
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		config, err := parseConfig("f", content, tinyPlugins())
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if err == nil && (config.Storage.Settings == nil || len(config.Transports) == 0) {
			t.Errorf("half a configuration: %+v", config)
		}
	})
}
