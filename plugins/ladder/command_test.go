package ladder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// client is an AdminClient without a network.
type client struct{ admin }

func (c client) Call(_ context.Context, _, path string, _, answer any) error {
	status, body := c.get(path)
	if status != http.StatusOK {
		return errors.New(body)
	}
	return json.Unmarshal([]byte(body), answer)
}

func (c client) Stream(context.Context, string, string, string, io.Reader, io.Writer) error {
	return errors.New("not used")
}

func runTrace(t *testing.T, a admin, args ...string) (string, error) {
	t.Helper()
	flags := flag.NewFlagSet("trace", flag.ContinueOnError)
	run := traceCommand().Setup(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := run(t.Context(), plugin.Invocation{Args: flags.Args(), Out: &out, Err: &out, Admin: client{a}})
	return out.String(), err
}

func TestCommand(t *testing.T) {
	a := admin{http.NewServeMux()}
	newStory(openOn(t, a, Config{Packets: 100, Steps: 100})).tell()
	file := filepath.Join(t.TempDir(), "trace.svg")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{storyMessage(1).ID.String()}, "● delivered"},
		{[]string{storyMessage(1).PublicID}, "● delivered"},
		{[]string{"1001@sip.example.com"}, "401 Unauthorized"},
		{[]string{"--output", "json", "1001@sip.example.com"}, `"what": "MESSAGE"`},
		{[]string{"--output", "svg", "1001@sip.example.com"}, "</svg>"},
		{[]string{"--svg", file, "1001@sip.example.com"}, "drawn into " + file},
		{[]string{"--limit", "3", "1001@sip.example.com"}, "This isn't all"},
	} {
		out, err := runTrace(t, a, c.args...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("trace %q: %v, %q isn't in\n%s", c.args, err, c.want, out)
		}
	}
	if drawn, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(drawn, []byte("<svg")) {
		t.Errorf("the file: %v, %.40q", err, drawn)
	}
}

func TestCommandRefuses(t *testing.T) {
	a := admin{http.NewServeMux()}
	openOn(t, a, Config{Packets: 10, Steps: 10})
	for _, args := range [][]string{{}, {"a@b", "c@d"}, {"--output", "png", "a@b"}, {"--limit", "0", "a@b"}} {
		_, err := runTrace(t, a, args...)
		if _, ok := errors.AsType[plugin.ErrUsage](err); !ok {
			t.Errorf("trace %q: %v, want an ErrUsage", args, err)
		}
	}
	for _, args := range [][]string{{"a@b"}, {"+4312345"}, {storyMessage(1).ID.String()}, {"--svg", "/nowhere/x.svg", "a@b"}} {
		if _, err := runTrace(t, a, args...); err == nil || !strings.Contains(err.Error(), "nothing is remembered") {
			t.Errorf("trace %q: %v", args, err)
		}
	}
}
