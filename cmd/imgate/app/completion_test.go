package app

import (
	"strings"
	"testing"
)

func TestCompletionScripts(t *testing.T) {
	for shell, want := range map[string]string{
		"bash": "complete -o default", "zsh": "#compdef imgate", "fish": "complete -c imgate", "powershell": "Register-ArgumentCompleter",
	} {
		t.Run(shell, func(t *testing.T) {
			got := imgate(t.Context(), tinyPlugins(), "completion", shell)
			if got.status != exitOK || !strings.Contains(got.out, want) || got.err != "" {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, args := range [][]string{{"completion"}, {"completion", "bahs"}, {"completion", "bash", "zsh"}} {
		if got := imgate(t.Context(), tinyPlugins(), args...); got.status != exitUsage {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// What a shell asks for, and is told: the words, and behind a colon whether
// files are offered too (0) or not (4).
func TestCompletedWords(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  []string
		want string
	}{
		{"commands", []string{"ac"}, "account\tcommands: add, list\n:4\n"},
		{"commands of a group", []string{"account", ""}, "add\tdo account add\nlist\tdo account list\n:4\n"},
		{"flags of a plugin", []string{"say", "--lo"}, "--loud\tin capitals\n:4\n"},
		{"values", []string{"manual", "--format", ""}, "man\nmarkdown\n:4\n"},
		{"free values", []string{"say", "--password", ""}, ":4\n"},
		{"files", []string{"check", "--config", ""}, ":0\n"},
		{"shells", []string{"completion", "f"}, "fish\n:4\n"},
		{"nothing to name", []string{"account", "add", ""}, ":4\n"},
		{"a directory to name", []string{"manual", ""}, ":0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := imgate(t.Context(), tinyPlugins(), append([]string{"__complete"}, c.ask...)...)
			if got.status != exitOK || got.out != c.want {
				t.Errorf("got %+v\nwant %q", got, c.want)
			}
		})
	}
}
