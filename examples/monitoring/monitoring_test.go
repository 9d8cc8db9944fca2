// Package monitoring_test holds the rules, the dashboard and the table of this
// directory against the metrics that a server really has.
package monitoring_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/examples/exampletest"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

var update = flag.Bool("update", false, "write the table of the README anew")

// promtool runs Debian's promtool, of the package prometheus. Where CI is set
// it must be there.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("promtool is missing: install Debian's package prometheus")
	}
	if err != nil {
		t.Skip("promtool is missing: install Debian's package prometheus")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Stdin = strings.NewReader(input)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtool(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", "alerts.yml"},
		{"check", "config", "prometheus.yml"},
		{"test", "rules", "alerts_test.yml"},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) { promtool(t, "", args...) })
	}
}

// TestEveryAlertIsTested: each is seen firing in alerts_test.yml, and says what
// to do.
func TestEveryAlertIsTested(t *testing.T) {
	rules, tests := read(t, "alerts.yml"), read(t, "alerts_test.yml")
	alerts := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(rules, -1)
	if len(alerts) < 20 {
		t.Errorf("only %d alerts", len(alerts))
	}
	for _, alert := range alerts {
		if !regexp.MustCompile(`alertname="` + alert[1] + `"[^~]*value: 1`).MatchString(tests) {
			t.Errorf("%s never fires in alerts_test.yml", alert[1])
		}
	}
	for _, annotation := range []string{"labels: {severity:", "summary:", "description:", "action:"} {
		if n := strings.Count(rules, annotation); n != len(alerts) {
			t.Errorf("%d alerts have %d times %s", len(alerts), n, annotation)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMetrics starts a server, lets it carry a message and refuse others, and
// compares its metrics with what is written here.
func TestMetrics(t *testing.T) {
	e := newExample(t)
	e.serve()
	e.carry()
	page := e.metrics()
	t.Run("promlint", func(t *testing.T) { lint(t, page) })
	t.Run("promtool", func(t *testing.T) { promtool(t, page, "check", "metrics") })

	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("alerts", func(t *testing.T) { checkNames(t, families, expressionsOfRules(t)) })
	t.Run("dashboard", func(t *testing.T) { checkNames(t, families, expressionsOfDashboard(t)) })
	t.Run("README", func(t *testing.T) { checkTable(t, families) })
	t.Run("nothing is left out", func(t *testing.T) {
		shown := read(t, "grafana-dashboard.json")
		for name := range families {
			if strings.HasPrefix(name, "imgate_") && !regexp.MustCompile(`\b`+name+`(_bucket)?\b`).MatchString(shown) {
				t.Errorf("the dashboard doesn't show %s", name)
			}
		}
	})
}

func lint(t *testing.T, page string) {
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// checkNames looks for the metrics that expressions name.
func checkNames(t *testing.T, families map[string]*dto.MetricFamily, expressions []string) {
	if len(expressions) < 20 {
		t.Errorf("only %d expressions", len(expressions))
	}
	for _, expression := range expressions {
		for _, name := range regexp.MustCompile(`\b(imgate|go|process)_[a-z0-9_]+`).FindAllString(expression, -1) {
			if !known(families, name) {
				t.Errorf("there is no metric %s: %s", name, expression)
			}
		}
		for _, match := range regexp.MustCompile(`\b(imgate_[a-z0-9_]+)\{([^}]*)\}`).FindAllStringSubmatch(expression, -1) {
			checkLabels(t, families[match[1]], match[2])
		}
	}
}

// checkLabels looks for the labels that a selector names, and for their values:
// the server must have shown them, or they are reasons, of which it has had few.
func checkLabels(t *testing.T, f *dto.MetricFamily, selector string) {
	for _, match := range regexp.MustCompile(`(\w+)(?:=~|!=|=)"([^"]*)"`).FindAllStringSubmatch(selector, -1) {
		label, values := match[1], strings.Split(match[2], "|")
		if f == nil || label == "job" || label == "instance" { // a part of a histogram; labels of the scrape
			continue
		}
		for _, value := range values {
			if isReason := label == "reason" && slices.Contains(message.Reasons[:], message.Reason(value)); !isReason && !has(f, label, value) {
				t.Errorf("%s has no %s %q", f.GetName(), label, value)
			}
		}
	}
}

func has(f *dto.MetricFamily, label, value string) bool {
	return slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool {
		return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == label && l.GetValue() == value })
	})
}

// known tells whether a server has a metric. Histograms and summaries are named
// by their parts, too.
func known(families map[string]*dto.MetricFamily, name string) bool {
	if families[name] != nil {
		return true
	}
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		whole, cut := strings.CutSuffix(name, part)
		if kind := families[whole].GetType(); cut && families[whole] != nil && (kind == dto.MetricType_HISTOGRAM || kind == dto.MetricType_SUMMARY) {
			return true
		}
	}
	return false
}

// expressionsOfRules are those of the alerts: a line, or a block of lines.
func expressionsOfRules(t *testing.T) []string {
	var all []string
	for _, match := range regexp.MustCompile(`(?ms)^ +expr: (.*?)\n +(?:for|labels):`).FindAllStringSubmatch(read(t, "alerts.yml"), -1) {
		all = append(all, match[1])
	}
	return all
}

func expressionsOfDashboard(t *testing.T) []string {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Annotations struct {
			List []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, variable := range dashboard.Templating.List {
		all = append(all, variable.Definition)
	}
	for _, annotation := range dashboard.Annotations.List {
		all = append(all, annotation.Expr)
	}
	return all
}

// checkTable compares the table of the README with what the server says of its
// own metrics.
func checkTable(t *testing.T, families map[string]*dto.MetricFamily) {
	var table bytes.Buffer
	fmt.Fprint(&table, "| metric | type | labels | what it is |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if f := families[name]; strings.HasPrefix(name, "imgate_") {
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), labels(f), f.GetHelp())
		}
	}
	const begin, end = "-update -->\n", "<!-- end -->"
	readme := read(t, "README.md")
	before, rest, ok := strings.Cut(readme, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("the README has no place for the table")
	}
	want := before + begin + table.String() + end + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if readme != want {
		t.Errorf("the table of the README isn't what the server has; go test ./examples/monitoring -update writes it:\n%s", &table)
	}
}

func labels(f *dto.MetricFamily) string {
	names := map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, label := range m.GetLabel() {
			names["`"+label.GetName()+"`"] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), " ")
}

// example is a copy of the configuration, on ports that are free here, with the
// program beside it.
type example struct {
	t     *testing.T
	dir   string
	admin string
}

func newExample(t *testing.T) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir(), admin: exampletest.FreePort(t)}
	config := strings.NewReplacer(
		"127.0.0.1:8060", e.admin, "127.0.0.1:5060", exampletest.FreePort(t),
		"127.0.0.1:2775", exampletest.FreePort(t), "127.0.0.1:2776", exampletest.FreePort(t),
		"{plugin: pebble}", "{plugin: postgres, url: \""+postgrestest.Start(t).URL()+"\"}", // which has metrics of its own
	).Replace(read(t, "imgate.yaml"))
	config += "limits: {contacts: 1}\n" + // so that a registration is refused
		// so that there are their metrics; nobody listens there
		"observers: {hep: {server: \"udp://127.0.0.1:9\"}, otlp: {endpoint: \"http://127.0.0.1:9\"}}\n"
	if err := os.WriteFile(filepath.Join(e.dir, "imgate.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	exampletest.Build(t, e.dir)
	return e
}

func (e *example) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(e.dir, "imgate"), append(args, "--config", "imgate.yaml")...)
	command.Dir = e.dir
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	return command
}

// start runs a command until the test ends, and waits for its first line.
func (e *example) start(args ...string) {
	e.t.Helper()
	ctx, stop := context.WithCancel(e.t.Context())
	command := e.command(ctx, args...)
	var log bytes.Buffer
	command.Stderr = &log
	out, err := command.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		e.t.Fatal(err)
	}
	drained := make(chan struct{})
	e.t.Cleanup(func() {
		stop()
		<-drained
		command.Wait()
	})
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n')
	go func() {
		defer close(drained)
		io.Copy(io.Discard, lines)
	}()
	if err != nil {
		e.t.Fatalf("imgate %q says nothing: %v\n%s", args, err, &log)
	}
}

func (e *example) serve() { e.start("serve") }

// imgate runs a command that must succeed, or must not.
func (e *example) imgate(succeeds bool, args ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	if out, err := e.command(ctx, args...).CombinedOutput(); (err == nil) != succeeds {
		e.t.Fatalf("imgate %q: %v\n%s", args, err, out)
	}
}

// carry makes the server do everything once that it has a metric for.
func (e *example) carry() {
	const alice, bob, secret = "1001@sip.example.com", "1002@sip.example.com", "--password=secret-enough"
	e.imgate(true, "account", "add", alice, secret, "--balance", "1.00")
	e.imgate(true, "account", "add", bob, secret)
	e.imgate(true, "send", alice, bob, "Not this one", secret)
	e.imgate(true, "message", "cancel", "--state", "waiting", "--all", "--yes")
	e.imgate(true, "send", alice, bob, "Hello", secret)
	e.imgate(true, "listen", bob, secret, "--count", "1")
	e.imgate(false, "send", alice, "nobody@sip.example.com", "Hello", secret)
	e.start("listen", bob, secret)
	e.imgate(false, "listen", bob, secret) // a second contact
}

func (e *example) metrics() string {
	e.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + e.admin + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		e.t.Fatalf("%s, %v\n%s", response.Status, err, page)
	}
	return string(page)
}
