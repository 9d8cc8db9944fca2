package app

import (
	"context"
	"flag"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// What is called wrongly ends with status 2, whoever finds out.
func TestWrongUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	picky := plugin.Command{
		Path: "pick", Args: "ONE", Short: "take one argument",
		Setup: func(flags *flag.FlagSet) plugin.Run {
			flags.String("note", "", "a note")
			return func(_ context.Context, in plugin.Invocation) error {
				if len(in.Args) != 1 {
					return plugin.Usage("expected ONE argument")
				}
				return nil
			}
		},
	}
	plugins := tinyPlugins()
	plugins[1] = plugins[1].With(picky)
	for _, c := range []struct {
		args []string
		err  string // empty: it is no wrong usage
	}{
		{[]string{"pick"}, "imgate: expected ONE argument\nsee imgate pick --help\n"},
		{[]string{"pick", "a", "b"}, "expected ONE argument"},
		{[]string{"pick", "a"}, ""},
		{[]string{"pick", "a", "--note", ""}, "imgate: --note: expected a value, which is not empty\nsee imgate pick --help\n"},
		{[]string{"pick", "a", "--note="}, "--note: expected a value"},
		{[]string{"pick", "a", "--note", "b"}, ""},
		{[]string{"version", "--config", ""}, "--config: expected a value"},
		{[]string{"--config=", "check"}, "--config: expected a value"},
		{[]string{"message", "list", "--output", "xml"}, "expected one of table, json"},
		{[]string{"message", "list", "--limit", "-1"}, "--limit -1: expected 0 or more"},
		{[]string{"message", "show"}, "accepts 1 arg"},
		{[]string{"message", "hide"}, "unknown command"},
		{[]string{"status", "now"}, "see imgate status --help"},
	} {
		got := imgate(t.Context(), plugins, c.args...)
		wrong := c.err != ""
		if (got.status == exitUsage) != wrong || (got.err != "") != wrong || !strings.Contains(got.err, c.err) {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
}
