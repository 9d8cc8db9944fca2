// Package imgate_test holds what is true of the whole repository.
package imgate_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/imgate/imgate/"

// room is a folder whose packages may import the same things.
type room struct {
	folder     string   // the longest one that fits counts
	ours       []string // what it may import of ours, folders with all below
	thirdParty bool
}

// rooms is who may import whom. Tests may import anything: they bring rooms
// together.
var rooms = []room{
	{folder: "engine/message"},
	{folder: "engine/plugin", ours: []string{"engine/message"}},
	{folder: "engine/plugin/plugintest", ours: []string{"engine/message", "engine/plugin"}},
	{folder: "engine/certificates", ours: []string{"engine/plugin"}},
	{folder: "engine", ours: []string{"engine"}},
	{folder: "transports", ours: contract, thirdParty: true},
	{folder: "plugins", ours: contract, thirdParty: true},
	{folder: "plugins/rego", ours: append([]string{"policies", "plugins/rego"}, contract...), thirdParty: true},
	{folder: "plugins/standard", ours: []string{"engine/plugin", "plugins", "transports"}},
	{folder: "policies"},
	{folder: "transports/sip", ours: append([]string{"transports/sip"}, contract...), thirdParty: true},
	{folder: "transports/sip/wire", ours: append([]string{"transports/sip/wire"}, contract...), thirdParty: true},
	{folder: "transports/sip/resolve", ours: append([]string{"transports/sip/resolve", "transports/sip/wire"}, contract...), thirdParty: true},
	{folder: "transports/sip/translate", ours: append([]string{"transports/sip/translate", "transports/sip/wire"}, contract...), thirdParty: true},
	{folder: "transports/sip/trunk", ours: append(sipBelow, append([]string{"transports/sip/trunk"}, contract...)...), thirdParty: true},
	{folder: "transports/sip/ua", ours: append([]string{"transports/sip/ua"}, contract...), thirdParty: true},
	{folder: "transports/smpp", ours: append([]string{"transports/smpp"}, contract...), thirdParty: true},
	{folder: "transports/smpp/wire", ours: append([]string{"transports/smpp/wire"}, contract...), thirdParty: true},
	{folder: "transports/smpp/text", ours: append([]string{"transports/smpp/text"}, contract...), thirdParty: true},
	{folder: "transports/smpp/translate", ours: append(smppBelow, contract...), thirdParty: true},
	{folder: "transports/smpp/server", ours: append(smppBelow, append([]string{"transports/smpp/server"}, contract...)...), thirdParty: true},
	{folder: "transports/smpp/client", ours: append(smppBelow, append([]string{"transports/smpp/client"}, contract...)...), thirdParty: true},
	{folder: "transports/smpp/smsc", ours: append(smppBelow, append([]string{"transports/smpp/smsc"}, contract...)...), thirdParty: true},
	{folder: "transports/smpp/load", ours: append(smppBelow, append([]string{"transports/smpp/load", "transports/smpp/smsc"}, contract...)...), thirdParty: true},
	{folder: "cmd/imgate", ours: []string{"engine", "plugins/standard", "cmd/imgate/app"}, thirdParty: true},
	{folder: "examples", ours: []string{"engine", "plugins", "policies", "transports", "cmd"}, thirdParty: true},
}

// contract is what a plugin may know of us.
var contract = []string{"engine/message", "engine/plugin", "engine/content", "engine/certificates"}

// sipBelow is what the doors of SIP stand on.
var sipBelow = []string{"transports/sip/wire", "transports/sip/resolve", "transports/sip/translate"}

// smppBelow is what both doors of SMPP stand on.
var smppBelow = []string{"transports/smpp/wire", "transports/smpp/text", "transports/smpp/translate"}

// mayImport tells whether a package may import a path, by its room's rule.
func mayImport(pkg, imported string) bool {
	r := roomOf(pkg)
	own, isOurs := strings.CutPrefix(imported, module)
	if !isOurs {
		return r.thirdParty || isStandard(imported)
	}
	for _, folder := range r.ours {
		if within(own, folder) {
			return true
		}
	}
	return false
}

func roomOf(pkg string) room {
	var best room
	for _, r := range rooms {
		if within(pkg, r.folder) && len(r.folder) > len(best.folder) {
			best = r
		}
	}
	return best
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// isStandard: a path of the standard library has no dot in its first element.
func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

func TestImports(t *testing.T) {
	files := 0
	for _, top := range []string{"engine", "plugins", "policies", "transports", "cmd", "examples"} {
		err := filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			files++
			checkImports(t, filepath.ToSlash(name))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func checkImports(t *testing.T, name string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !mayImport(path.Dir(name), imported) {
			t.Errorf("%s imports %s: its room forbids that", name, imported)
		}
	}
}

// TestImportRuleBites gives the rule pairs that it must refuse, and some that
// it must let pass.
func TestImportRuleBites(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		want          bool
	}{
		{"engine/message", module + "engine/plugin", false},
		{"engine/message", "github.com/emiago/sipgo/sip", false},
		{"engine/plugin", module + "engine/spool", false},
		{"engine/plugin", module + "engine/message", true},
		{"engine/pipeline", module + "transports/sip", false},
		{"engine/pipeline", "github.com/cockroachdb/pebble/v2", false},
		{"engine/pipeline", module + "engine/spool", true},
		{"engine/certificates", module + "engine/spool", false},
		{"transports/smpp/server", module + "engine/certificates", true},
		{"engine", module + "plugins/pebble", false},
		{"plugins/pebble", module + "engine/spool", false},
		{"plugins/pebble", module + "plugins/memory", false},
		{"plugins/pebble", "github.com/cockroachdb/pebble/v2", true},
		{"plugins/ledger", module + "policies", false},
		{"plugins/rego", module + "policies", true},
		{"transports/sip", module + "transports/loop", false},
		{"transports/sip", module + "transports/sip/wire", true},
		{"transports/sip/wire", module + "transports/sip", false},
		{"transports/sip/ua", module + "transports/sip/wire", false},
		{"transports/sip/resolve", module + "transports/sip/trunk", false},
		{"transports/sip/trunk", module + "transports/sip/resolve", true},
		{"transports/sip/trunk", module + "transports/sip", false},
		{"transports/loop", module + "engine/pipeline", false},
		{"transports/smpp/wire", module + "transports/smpp/text", false},
		{"transports/smpp/translate", module + "transports/smpp/wire", true},
		{"transports/smpp/translate", module + "transports/smpp/client", false},
		{"transports/smpp/client", module + "transports/smpp/server", false},
		{"transports/smpp/server", module + "transports/smpp/translate", true},
		{"policies", "github.com/open-policy-agent/opa/v1/rego", false},
		{"cmd/imgate/app", module + "transports/sip", false},
		{"cmd/imgate/app", module + "engine", true},
		{"cmd/imgate", module + "plugins/standard", true},
		{"examples/hello", module + "transports/sip", true},
		{"somewhere/new", module + "engine/message", false},
	} {
		if got := mayImport(c.pkg, c.imported); got != c.want {
			t.Errorf("mayImport(%s, %s) = %t", c.pkg, c.imported, got)
		}
	}
}

// budgets are how many lines of code the rooms of the engine may have, tests
// and contract suites apart. Comments are free: nobody should be tempted to
// leave one out. See docs/decisions/0007-line-budgets.md.
var budgets = []struct {
	what    string
	folders []string // below engine; a file belongs to the longest that fits
	most    int
}{
	{"the flow", []string{"message", "spool", "pipeline"}, 8250},
	{"content", []string{"content"}, 1200},
	{"certificates", []string{"certificates"}, 335},
	{"rate limits", []string{"ratelimit"}, 300},
	{"joining", []string{"joining"}, 600},
	{"waking apps", []string{"push"}, 300},
	{"revisions", []string{"revisions"}, 1250},
	{"the node", []string{""}, 2170},
	{"standby", []string{"standby"}, 750},
	{"the contract", []string{"plugin"}, 1350},
	{"the HTTP side", []string{"admin"}, 1000},
}

func TestEngineStaysSmall(t *testing.T) {
	lines := make([]int, len(budgets))
	err := filepath.WalkDir("engine", func(name string, entry fs.DirEntry, err error) error {
		name = filepath.ToSlash(name)
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/plugintest/") {
			return err
		}
		n, err := linesOfCode(name)
		lines[budgetOf(path.Dir(name))] += n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, budget := range budgets {
		t.Logf("%s has %d lines of code, at most %d", budget.what, lines[i], budget.most)
		if lines[i] > budget.most {
			t.Errorf("%s has %d lines of code, at most %d", budget.what, lines[i], budget.most)
		}
	}
}

func budgetOf(folder string) (best int) {
	longest := -1
	for i, budget := range budgets {
		for _, f := range budget.folders {
			if within(folder, path.Join("engine", f)) && len(f) > longest {
				best, longest = i, len(f)
			}
		}
	}
	return best
}
