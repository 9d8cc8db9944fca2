package app

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/imgate/imgate/plugins/standard"
)

// TestReferenceIsGenerated holds the pages of docs/reference against what the
// program says of itself.
func TestReferenceIsGenerated(t *testing.T) {
	root, err := newRoot(terminal{strings.NewReader(""), io.Discard, io.Discard}, standard.Plugins)
	if err != nil {
		t.Fatal(err)
	}
	files, err := manual(root, standard.Plugins, "markdown", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "reference", name))
		if err != nil || string(got) != want {
			t.Errorf("docs/reference/%s isn't what the program says of itself (%v); write it anew with\n\tgo run ./cmd/imgate manual --format markdown docs/reference", name, err)
		}
	}
}

// TestEveryKeyIsExplained: a key that operators can write has a line in the
// reference that says what it does.
func TestEveryKeyIsExplained(t *testing.T) {
	for _, block := range configurationPage(standard.Plugins).blocks {
		for _, key := range block.keys {
			if key.doc == "" {
				t.Errorf("the key %s has no tag doc:\"…\"", key.path)
			}
		}
	}
}

func TestManual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got := imgate(t.Context(), tinyPlugins(), "manual", dir, "--date", "2026-01-31"); got.status != exitOK {
		t.Fatalf("%+v", got)
	}
	for name, wants := range map[string][]string{
		"imgate.1": {
			".TH IMGATE 1 \"2026-01-31\" IMGate \"IMGate manual\"\n",
			".SH NAME\nimgate \\- a messaging gateway for telecom operators\n",
			".SH SYNOPSIS\n\\fBimgate COMMAND [flags]\\fP\n",
			".TP\n\\fBimgate serve\\fP\nrun the gateway\n",
			".SH EXIT STATUS\n",
		},
		"imgate-say.1": {
			"imgate say WORD... [flags]", ".TP\n\\fB\\-\\-password secret\\fP\nthe secret\n", ".TP\n\\fB\\-\\-loud\\fP\nin capitals\n",
		},
		"imgate-account.1":     {".SH COMMANDS\n.TP\n\\fBimgate account add\\fP\ndo account add\n"},
		"imgate-account-add.1": {"imgate account add ADDRESS"},
		"imgate-sql.7": {
			".TH IMGATE\\-SQL 7 ", ".SH WAITING\n", "\\fBreceived\\fP (timestamptz)\nwhen it came in\n",
		},
		"imgate-policies.7": {
			".TH IMGATE\\-POLICIES 7 ", ".SH THE PLAN\n",
			".TP\n\\fBplan.processing\\fP (text, default \\fB\"deliver\"\\fP)\n", "\n.br\n\\fBplan.processing := \"reject\"\\fP\n",
			".TP\n\\fBinput.message.size\\fP (whole number)\noctets of the body\n",
		},
		"imgate.yaml.5": {
			".TH IMGATE.YAML 5 ",
			".SH TRANSPORTS.NAME, PLUGIN SIP\nSIP over UDP.\n",
			`\fBlisten\fP (list of text, default \fB["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]\fP)`,
			`\fBtimeout\fP (duration, default \fB5s\fP)`, `\fBlimits.body\fP (whole number, default \fB0\fP)`,
			`\fBlabels\fP (section of text, default \fB{built: in}\fP)`, `\fBrules[].cost\fP (money, default \fB0.00\fP)`,
			".SH STORAGE, PLUGIN PEBBLE\nFiles on disk.\n.PP\nIt has no keys.\n",
		},
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "imgate-manual.1")); err == nil {
		t.Error("a hidden command has a page")
	}
}

func TestManualThatCannotBe(t *testing.T) {
	if got := imgate(t.Context(), tinyPlugins(), "manual", t.TempDir(), "--format", "pdf"); got.status != exitUsage {
		t.Errorf("%+v", got)
	}
	if got := imgate(t.Context(), tinyPlugins(), "manual", write(t, "file", "")); got.status != exitError {
		t.Errorf("%+v", got)
	}
}

func TestRoffEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"plain":              "plain",
		`.so /etc/passwd \x`: `\&.so /etc/passwd \ex`,
		"'quoted":            `\&'quoted`,
		"use `--x` and ~":    `use \fB\-\-x\fP and \(ti`,
		"`.x`":               `\fB.x\fP`,
		"`a|b`":              `\fBa|\:b\fP`,
		"":                   `\&`,
	} {
		if got := roffText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestMarkdownEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"a<b> *c* [d]":   `a&lt;b> \*c\* \[d]`,
		"`a<b> *c* [d]`": "`a<b> *c* [d]`",
	} {
		if got := markdownText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	table := markdown("T", page{blocks: []block{{keys: []configKey{{"k", "text", "a|b", "x|y"}}}}})
	if !strings.Contains(table, "| `k` | text | `a\\|b` | x\\|y |\n") {
		t.Error(table)
	}
}

func TestParagraphs(t *testing.T) {
	got := paragraphs("One\ntwo.\n\n  x\n    y\n \nThree.\n")
	want := []block{{text: "One two."}, {literal: []string{"x", "  y"}}, {text: "Three."}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
