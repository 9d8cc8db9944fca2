// Package cluster_test does what the README of this example says.
package cluster_test

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/examples/exampletest"
	"github.com/imgate/imgate/plugins/postgres/postgrestest"
)

// TestCluster starts both nodes, on ports that are free here and a database of
// their own, and runs the README's commands in their order.
func TestCluster(t *testing.T) {
	database := postgrestest.Start(t)
	e := newExample(t, database.URL())
	e.serve("a.yaml")
	e.await("a.yaml", 1)
	e.serve("b.yaml")
	e.await("a.yaml", 2)
	var text string
	for _, line := range commands(t) {
		text += e.imgate(line...)
	}
	for _, want := range []string{
		"active  a, since ", "kept until the recipient comes online", "b is active since ",
		"1001@sip.example.com  Through a", "1001@sip.example.com  Through b", "active  b, since ",
	} {
		_, rest, found := strings.Cut(text, want)
		if !found {
			t.Fatalf("the commands don't print %q, but\n%s", want, text)
		}
		text = rest
	}
}

// TestReferenceSaysWhatThereIs compares the views of a database with
// docs/reference/sql.md.
func TestReferenceSaysWhatThereIs(t *testing.T) {
	database := postgrestest.Start(t)
	e := newExample(t, database.URL())
	e.serve("a.yaml")
	e.await("a.yaml", 1)
	var there []string
	for _, row := range database.Query(t, `SELECT v.relname, c.attname, t.typname FROM pg_class v
		JOIN pg_namespace n ON n.oid = v.relnamespace AND n.nspname = 'imgate'
		JOIN pg_attribute c ON c.attrelid = v.oid JOIN pg_type t ON t.oid = c.atttypid
		WHERE v.relkind = 'v' ORDER BY v.relname, c.attnum`) {
		there = append(there, strings.Join(row, " "))
	}
	if described := columns(t); len(described) < 50 || !slices.Equal(described, there) {
		t.Errorf("described\n%s\nthere\n%s", strings.Join(described, "\n"), strings.Join(there, "\n"))
	}
}

// columns are those of the reference: view, name and PostgreSQL's own name of
// the type, by view.
func columns(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/reference/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, views, _ := strings.Cut(string(page), "\n## Description\n")
	sections := strings.Split(views, "\n## ")[1:]
	slices.Sort(sections)
	own := map[string]string{"bigint": "int8", "boolean": "bool"}
	var list []string
	for _, section := range sections {
		view, _, _ := strings.Cut(section, "\n")
		for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+)").FindAllStringSubmatch(section, -1) {
			list = append(list, view+" "+row[1]+" "+cmp.Or(own[row[2]], row[2]))
		}
	}
	return list
}

// example is a copy of the configurations with the program built beside them.
type example struct {
	t   *testing.T
	dir string
}

func newExample(t *testing.T, database string) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	t.Setenv("DB_PASSWORD", "secret")
	change := strings.NewReplacer(
		"postgres://imgate@127.0.0.1:5432/imgate", database,
		"127.0.0.1:8060", exampletest.FreePort(t), "127.0.0.1:8061", exampletest.FreePort(t),
		"127.0.0.1:5060", exampletest.FreePort(t), "127.0.0.1:5062", exampletest.FreePort(t),
	)
	for _, name := range []string{"a.yaml", "b.yaml"} {
		config, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(change.Replace(string(config))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exampletest.Build(t, e.dir)
	return e
}

func (e *example) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(e.dir, "imgate"), args...)
	command.Dir = e.dir
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 15 * time.Second
	return command
}

// serve runs a node until the test ends.
func (e *example) serve(config string) {
	e.t.Helper()
	ctx, stop := context.WithCancel(e.t.Context())
	node := e.command(ctx, "serve", "--config", config)
	var log bytes.Buffer
	node.Stderr = &log
	if err := node.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		stop()
		if node.Wait(); e.t.Failed() {
			e.t.Logf("the log of %s:\n%s", config, &log)
		}
	})
}

// await waits until a node sees so many nodes, and all is well.
func (e *example) await(config string, n int) {
	e.t.Helper()
	var out []byte
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		out, err = e.command(e.t.Context(), "cluster", "status", "--nodes", strconv.Itoa(n), "--config", config).CombinedOutput()
		if err == nil {
			return
		}
	}
	e.t.Fatalf("%s doesn't see %d nodes that are well, but\n%s", config, n, out)
}

func (e *example) imgate(args ...string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	out, err := e.command(ctx, args...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("imgate %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// commands are those of the README's last block, split as a shell would.
func commands(t *testing.T) [][]string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, last, ok := strings.Cut(string(readme), "in a third one")
	if !ok {
		t.Fatal("the README has changed: this test reads its last block")
	}
	var list [][]string
	for line := range strings.Lines(last) {
		if words, ok := strings.CutPrefix(strings.TrimSpace(line), "imgate "); ok {
			list = append(list, split(words))
		}
	}
	if len(list) != 8 {
		t.Fatalf("%d commands, want 8", len(list))
	}
	return list
}

// split takes a line apart at spaces, but for those between quotation marks.
func split(line string) []string {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}
