package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgate/imgate/plugins/standard"
)

// TestPlanPageIsTrue loads every line of Rego that the page on policies shows, and
// every word that it says there is.
func TestPlanPageIsTrue(t *testing.T) {
	for _, f := range planFields() {
		lines := []string{f.example, f.path + " := " + f.usual}
		for _, word := range f.choices {
			value := fmt.Sprintf("%q", word)
			if strings.HasPrefix(f.kind, "list of") {
				value = "[" + value + "]"
			}
			lines = append(lines, f.path+" := "+value)
		}
		for _, line := range lines {
			loads(t, line)
		}
		loadsNot(t, f.path+`.no_such_part := {"no": "such"}`)
	}
}

// TestQuestionPageIsTrue: a policy can read every name of the question, and no
// other.
func TestQuestionPageIsTrue(t *testing.T) {
	for _, f := range questionFields() {
		read := fmt.Sprintf("plan.labels.seen := \"yes\" if %s\n\nasks := [\"text\"]\n", f.path)
		loads(t, read)
		if !strings.HasPrefix(f.kind, "object") {
			loadsNot(t, strings.Replace(read, f.path, f.path+"x", 1))
		}
	}
}

func loads(t *testing.T, line string) {
	t.Helper()
	if got := checkLine(t, line); got.status != exitOK {
		t.Errorf("%s: %s", line, got.err)
	}
}

func loadsNot(t *testing.T, line string) {
	t.Helper()
	if got := checkLine(t, line); got.status != exitError {
		t.Errorf("%s: loads, with status %d", line, got.status)
	}
}

// checkLine checks a service that says one thing. What is routed elsewhere has to
// be charged.
func checkLine(t *testing.T, line string) outcome {
	t.Helper()
	text := "package imgate.services.example\n\nmatch := {\"domains\": [\"*\"]}\n\n" + line + "\n"
	if !strings.Contains(line, "plan.charging") {
		text += "\nplan.charging.mode := \"event\"\n"
	}
	return checkPolicies(t, map[string]string{"example.rego": text})
}

func checkPolicies(t *testing.T, files map[string]string) outcome {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return imgate(t.Context(), standard.Plugins, "policy", "check", dir)
}

// TestPolicyTextIsTrue loads what the paragraphs of the page show, all together.
func TestPolicyTextIsTrue(t *testing.T) {
	var shown []string
	for _, b := range policiesPage().blocks {
		if b.literal != nil {
			shown = append(shown, strings.Join(b.literal, "\n")+"\n")
		}
	}
	if len(shown) != 3 {
		t.Fatalf("%d examples: %q", len(shown), shown)
	}
	service, rows, limits := shown[0], shown[1], shown[2]
	for name, files := range map[string]map[string]string{
		"the service": {"wholesale.rego": service},
		"the rows":    {"sms.rego": "package imgate.services.sms\n\nplan.labels.tariff := input.match.attributes.tariff\n", "sms.yaml": rows},
		"the limits":  {"limited.rego": "package imgate.services.limited\n\nmatch := {\"domains\": [\"*\"]}\n\n" + limits + "\nplan.processing := \"reject\" if input.counters.pair > 3\n"},
	} {
		if got := checkPolicies(t, files); got.status != exitOK {
			t.Errorf("%s: %s", name, got.err)
		}
	}
}

// TestLimitKeysAreTrue: a limit may count by what the page lists, and by nothing
// else.
func TestLimitKeysAreTrue(t *testing.T) {
	named := strings.Split(limitKeys, ", ")
	for _, path := range named {
		loads(t, fmt.Sprintf("limits := {\"some\": {\"key\": %q, \"per\": \"1m\"}}", path))
	}
	got := checkLine(t, `limits := {"some": {"key": "nothing", "per": "1m"}}`)
	slices.Sort(named)
	if want := strings.Join(named, ", "); !strings.Contains(got.err, want+", got") {
		t.Errorf("expected %s\nfound %s", want, got.err)
	}
}

// TestEveryReasonIsExplained: the page explains the words that plans may use, and
// no others.
func TestEveryReasonIsExplained(t *testing.T) {
	var used []string
	for _, f := range planFields() {
		if strings.HasSuffix(f.path, ".reason") || strings.HasSuffix(f.path, ".reasons") {
			used = append(used, f.choices...)
		}
	}
	var explained []string
	for _, term := range reasonTerms {
		explained = append(explained, term.name)
	}
	slices.Sort(used)
	slices.Sort(explained)
	if used = slices.Compact(used); !slices.Equal(used, explained) {
		t.Errorf("used %q, explained %q", used, explained)
	}
}

// TestPolicyFieldsAreExplained: the page leaves nothing to be guessed.
func TestPolicyFieldsAreExplained(t *testing.T) {
	for _, f := range planFields() {
		if f.doc == "" || f.usual == "" || strings.HasSuffix(f.example, ":= ") {
			t.Errorf("%+v", f)
		}
	}
	for _, f := range questionFields() {
		if f.doc == "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestPolicyCommandsReadTheConfiguration: where no directory is named, and for
// what is asked of tests.
func TestPolicyCommandsReadTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	service := "package imgate.services.here\n\nmatch := {\"domains\": [\"*\"]}\n\nplan.store := sprintf(\"%ds\", [input.message.size])\n\n" +
		"plan.transports  := [\"vendor\"]\n\nplan.mime.loop := [\"text/plain\"]\n"
	question := write(t, "question.json", `{"message": {"type": "text/html"}}`)
	if err := os.WriteFile(filepath.Join(dir, "here.rego"), []byte(service), 0o644); err != nil {
		t.Fatal(err)
	}
	config := write(t, "imgate.yaml", fmt.Sprintf("policy: {plugin: rego, dir: %q, coverage: 50.0}\ntransports: {vendor: {plugin: loop}, sip: {plugin: sip, domains: [a.example.com]}}\n", dir))
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"policy", "domains", "1@a.example.com"}, exitOK, "service here"},
		{[]string{"policy", "test"}, exitError, "expected 50 %"},
		{[]string{"policy", "test", "--coverage", "0"}, exitOK, "no tests"},
		{[]string{"policy", "check"}, exitError, "in " + dir},
		{[]string{"policy", "fmt", "--check"}, exitError, "here.rego"},
		{[]string{"policy", "nothing"}, exitUsage, "unknown command"},
		{[]string{"policy", "eval"}, exitUsage, "expected a message"},
		{[]string{"policy", "eval", "--message", question}, exitOK, "unsupported-type: text/html may not go over vendor"},
	} {
		got := imgate(t.Context(), standard.Plugins, append(c.args, "--config", config)...)
		if got.status != c.status || !strings.Contains(got.out+got.err, c.want) {
			t.Errorf("%q: %+v, want %d and %q", c.args, got, c.status, c.want)
		}
	}
}

// TestPolicyGroupIsShared: the program and plugins have commands in one group, and
// its line of help is the program's.
func TestPolicyGroupIsShared(t *testing.T) {
	got := imgate(t.Context(), standard.Plugins, "policy", "--help")
	for _, want := range []string{"  status ", "  eval ", "  init "} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	if strings.Contains(got.out, "commands: ") {
		t.Errorf("%s", got.out)
	}
}
