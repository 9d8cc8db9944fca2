package ladder

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func traceCommand() plugin.Command {
	return plugin.Command{
		Path: "trace", Args: "MESSAGE-ID|ADDRESS", Short: "draw what was said to whom about a message",
		Long: "Draws a ladder diagram of a message, or of the last messages from or to an address: each request and\n" +
			"response, and each step in the gateway with what it took. The server remembers some ten thousands of\n" +
			"both and forgets the oldest; it never keeps what a person wrote.",
		Setup: setupTrace,
	}
}

// traceFlags are the command's flags.
type traceFlags struct {
	output string
	svg    string
	limit  int
}

func setupTrace(flags *flag.FlagSet) plugin.Run {
	var f traceFlags
	flags.StringVar(&f.output, "output", "text", "print as `text|json|svg`")
	flags.StringVar(&f.svg, "svg", "", "draw it into this `FILE`, as SVG")
	flags.IntVar(&f.limit, "limit", defaultLimit, fmt.Sprintf("show at most `N` events, up to %d", maxLimit))
	return f.run
}

func (f *traceFlags) run(ctx context.Context, in plugin.Invocation) error {
	if len(in.Args) != 1 {
		return plugin.Usage("expected one message ID or address, for example: trace 1001@sip.example.com")
	}
	if f.limit < 1 || f.limit > maxLimit {
		return plugin.Usage("--limit %d: expected a number from 1 to %d", f.limit, maxLimit)
	}
	write, ok := map[string]func(plugin.Invocation, trace) error{"text": printText, "json": printJSON, "svg": printSVG}[f.output]
	if !ok {
		return plugin.Usage("--output %s: expected text, json or svg", f.output)
	}
	var t trace
	if err := in.Admin.Call(ctx, http.MethodGet, f.path(in.Args[0]), nil, &t); err != nil {
		return err
	}
	if f.svg == "" {
		return write(in, t)
	}
	if err := os.WriteFile(f.svg, drawSVG(newDiagram(t)), 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(in.Out, "drawn into %s\n", f.svg)
	return err
}

// path asks for an address if it looks like one: IDs have neither an @ nor
// digits alone.
func (f *traceFlags) path(what string) string {
	query := url.Values{"limit": {fmt.Sprint(f.limit)}}
	if isAddress(what) {
		query.Set("address", what)
	} else {
		query.Set("message", what)
	}
	return "/v1/trace?" + query.Encode()
}

func isAddress(s string) bool {
	if _, err := message.ParseID(s); err == nil {
		return false
	}
	return strings.Contains(s, "@") || strings.Trim(s, "+0123456789") == ""
}

func printText(in plugin.Invocation, t trace) error { return writeText(in.Out, newDiagram(t)) }

func printJSON(in plugin.Invocation, t trace) error {
	out := json.NewEncoder(in.Out)
	out.SetIndent("", "  ")
	return out.Encode(t)
}

func printSVG(in plugin.Invocation, t trace) error {
	_, err := in.Out.Write(drawSVG(newDiagram(t)))
	return err
}
