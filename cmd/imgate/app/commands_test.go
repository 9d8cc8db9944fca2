package app

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// outcome is what a command leaves behind.
type outcome struct {
	status   int
	out, err string
}

func imgate(ctx context.Context, plugins []plugin.Definition, args ...string) outcome {
	var out, err bytes.Buffer
	status := run(ctx, append([]string{}, args...), terminal{strings.NewReader(""), &out, &err}, plugins)
	return outcome{status, out.String(), err.String()}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The environment names the configuration file where no flag does.
func TestConfigVariable(t *testing.T) {
	good := write(t, "imgate.yaml", issueYAML)
	t.Setenv(configVariable, good)
	if got := imgate(t.Context(), tinyPlugins(), "check"); got != (outcome{exitOK, good + ": ok\n", ""}) {
		t.Errorf("%+v", got)
	}
	other := write(t, "other.yaml", issueYAML)
	if got := imgate(t.Context(), tinyPlugins(), "check", "--config", other); got != (outcome{exitOK, other + ": ok\n", ""}) {
		t.Errorf("with --config: %+v", got)
	}
}

func TestCommands(t *testing.T) {
	t.Chdir(t.TempDir()) // no data of anybody's
	good := write(t, "imgate.yaml", issueYAML)
	bad := write(t, "imgate.yaml", strings.ReplaceAll(issueYAML, "domains:", "domain:"))
	broken := write(t, "imgate.yaml", strings.ReplaceAll(issueYAML, "./policies", "broken"))
	for _, c := range []struct {
		name string
		args []string
		want outcome // out and err: what they contain
	}{
		{"check", []string{"check", "--config", good}, outcome{exitOK, good + ": ok\n", ""}},
		{"check what is built in", []string{"check"}, outcome{exitOK, "built-in defaults: ok\n", ""}},
		{"check mistakes", []string{"check", "--config", bad}, outcome{exitError, "", bad + ":13: transports.sip.domain: unknown key; did you mean domains?"}},
		{"check policies", []string{"--config=" + broken, "check"}, outcome{exitError, "", broken + `:5: policy: policy plugin "rego": broken/a.rego:3: rego_parse_error`}},
		{"check no file", []string{"check", "--config", "absent.yaml"}, outcome{exitError, "", "imgate: configuration file: open absent.yaml: no such file"}},
		{"check too much", []string{"check", "now"}, outcome{exitUsage, "", "see imgate check --help"}},
		{"plugins", []string{"plugins"}, outcome{exitOK, "KIND       NAME    DESCRIPTION\ntransport  loop    gives back what it is given\ntransport  sip     SIP over UDP\nstorage    memory  nothing on disk\n", ""}},
		{"version", []string{"version"}, outcome{exitOK, runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n", ""}},
		{"nothing", nil, outcome{exitOK, "Available Commands:", ""}},
		{"unknown command", []string{"serv"}, outcome{exitUsage, "", `imgate: unknown command "serv"; did you mean serve? expected one of account, check,`}},
		{"unknown flag", []string{"version", "--bogus"}, outcome{exitUsage, "", "imgate: unknown flag: --bogus\nsee imgate version --help\n"}},
		{"number below zero", []string{"version", "-5.00"}, outcome{exitUsage, "", "imgate: unknown shorthand flag: '5' in -5.00; write -- before a number below zero\n"}},
		{"reload of mistakes", []string{"reload", "--config", bad}, outcome{exitError, "", bad + ":13: transports.sip.domain: unknown key; did you mean domains? expected one of listen, domains, timeout, pause, retries, port, ratio, verbose, limits, labels, rules, token, target, plugin\nimgate: the new configuration was not taken; a server that runs goes on"}},
		{"log level", []string{"serve", "--log-level", "loud"}, outcome{exitUsage, "", "log-level"}},
		{"serve mistakes", []string{"serve", "--config", bad}, outcome{exitError, "", "unknown key"}},
		{"flags behind", []string{"say", "a", "b", "--password", "x", "--loud"}, outcome{exitOK, "[a b] x true [sip.example.com]\n", ""}},
		{"flags before", []string{"say", "--password=-x", "a", "b"}, outcome{exitOK, "[a b] -x false [sip.example.com]\n", ""}},
		{"settings", []string{"say", "--config", write(t, "c.yaml", "transports: {b: {plugin: sip, domains: [second], listen: []}, a: {plugin: sip, domains: [first]}}")}, outcome{exitOK, "[]  false [first]\n", ""}},
		{"default settings", []string{"say", "--config", write(t, "c.yaml", "transports: {loop: {}}")}, outcome{exitOK, "[]  false []\n", ""}},
		{"plugin's command fails", []string{"say", "fail"}, outcome{exitError, "", "imgate: nothing to say\n"}},
		{"plugin's command with mistakes", []string{"say", "--config", bad}, outcome{exitError, "", bad + ":13: "}},
		{"group", []string{"account"}, outcome{exitOK, "do account add", ""}},
		{"group's unknown", []string{"account", "ad"}, outcome{exitUsage, "", `imgate: unknown command "ad"; did you mean add? expected one of add, list`}},
		{"help", []string{"say", "--help"}, outcome{exitOK, "--password secret", ""}},
		{"no server yet", []string{"account", "list"}, outcome{exitError, "", "imgate: no server has run here: imgate-data/admin.token, which it makes, doesn't exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := imgate(t.Context(), tinyPlugins(), c.args...)
			if got.status != c.want.status || !strings.Contains(got.out, c.want.out) || !strings.Contains(got.err, c.want.err) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			if (got.err == "") != (got.status == exitOK) {
				t.Errorf("status %d with %q on stderr", got.status, got.err)
			}
			if got.status != exitOK && got.out != "" {
				t.Errorf("an error, and on stdout: %q", got.out)
			}
		})
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestInterruptedCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := imgate(ctx, tinyPlugins(), "say", "wait"); got != (outcome{exitError, "", "imgate: interrupted\n"}) {
		t.Errorf("%+v", got)
	}
}

func TestListsThatCannotBe(t *testing.T) {
	tiny := tinyPlugins()
	for _, c := range []struct {
		name string
		list []plugin.Definition
		want string
	}{
		{"a plugin twice", append(tinyPlugins(), tiny[0]), `two transport plugins are named "sip"`},
		{"a command twice", append(tinyPlugins(), plugin.Definition{Name: "x", Commands: []plugin.Command{sayCommand}}), "there is such a command already"},
		{"one of ours", []plugin.Definition{tiny[1].With(tinyCommand("serve", ""))}, "there is such a command already"},
		{"below one of ours", []plugin.Definition{tiny[1].With(tinyCommand("serve all", ""))}, `"imgate serve" is a command of its own`},
		{"no words", []plugin.Definition{tiny[1].With(tinyCommand("", ""))}, "it has no words"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := imgate(t.Context(), c.list, "version")
			if got.status != exitError || !strings.Contains(got.err, c.want) {
				t.Errorf("%+v, want %s", got, c.want)
			}
		})
	}
}

func TestVersionLine(t *testing.T) {
	platform := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "imgate (unknown version)" + platform},
		{&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "imgate v1.2.3" + platform},
		{&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
		}}, "imgate (devel) commit abc (modified)" + platform},
	} {
		if got := versionLine(c.info); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
