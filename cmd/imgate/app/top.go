package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	lookEvery   = time.Second
	lookTimeout = 5 * time.Second
	// latencyWindow is how many looks back latencies are taken over: one
	// second has too few messages for a p99.
	latencyWindow = 10

	onceWidth, onceHeight = 80, 200 // of a frame that isn't for a terminal
)

func topCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "top",
		Short: "watch the running server",
		Long: "Shows what the server does, once a second: messages per second, latencies, what waits, and why\n" +
			"messages are refused. q ends it.",
		Args: cobra.NoArgs,
	}
	once := command.Flags().Bool("once", false, "print one frame and end")
	output := addChoice(command, "output", "", "the same as --once", asText)
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		look := func(ctx context.Context) (*sight, error) { return lookAt(ctx, admin) }
		if *once || output.value == asText {
			return topOnce(cmd.Context(), cmd.OutOrStdout(), look, lookEvery)
		}
		if !isTerminal(cmd.InOrStdin()) || !isTerminal(cmd.OutOrStdout()) {
			return plugin.Usage("this is no terminal: say --once")
		}
		colour := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		return topLive(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), newTop(cmd.Context(), look, colour))
	})
	return command
}

// topOnce prints one frame: two looks, because rates need two.
func topOnce(ctx context.Context, out io.Writer, look func(context.Context) (*sight, error), pause time.Duration) error {
	t := newTop(ctx, look, false)
	for n := range 2 {
		if n > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		seen := t.look().(looked)
		if seen.err != nil {
			return seen.err
		}
		t.take(seen)
	}
	for _, l := range t.frame(onceWidth, onceHeight) {
		if _, err := fmt.Fprintln(out, l.text); err != nil {
			return err
		}
	}
	return nil
}

// topLive shows frames until somebody quits or ctx ends. The terminal is as it
// was when it returns, whatever happened.
func topLive(ctx context.Context, in io.Reader, out io.Writer, t *top) error {
	program := tea.NewProgram(t, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out),
		tea.WithAltScreen(), tea.WithoutSignalHandler()) // signals end ctx
	_, err := program.Run()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return nil // ended from outside, which is a way to quit
	}
	return err
}

// top is what is on the screen: a model of bubbletea's.
type top struct {
	ctx  context.Context
	see  func(context.Context) (*sight, error)
	dyes bool // colour

	seen   []*sight // the last looks at one process, the oldest first
	err    error    // why there was nothing to be seen at the last look
	width  int
	height int
}

var _ tea.Model = (*top)(nil)

func newTop(ctx context.Context, see func(context.Context) (*sight, error), dyes bool) *top {
	return &top{ctx: ctx, see: see, dyes: dyes, width: 80, height: 24}
}

// What happens to it besides keys and changes of size.
type (
	looked struct {
		sight *sight
		err   error
	}
	dueToLook struct{}
)

// Init implements tea.Model.
func (t *top) Init() tea.Cmd { return t.look }

// look takes a look at the server; it is called beside the other methods.
func (t *top) look() tea.Msg {
	ctx, cancel := context.WithTimeout(t.ctx, lookTimeout)
	defer cancel()
	s, err := t.see(ctx)
	return looked{s, err}
}

// Update implements tea.Model. A look follows a second after the last one
// ended, so there is never more than one.
func (t *top) Update(event tea.Msg) (tea.Model, tea.Cmd) {
	switch event := event.(type) {
	case looked:
		t.take(event)
		return t, tea.Tick(lookEvery, func(time.Time) tea.Msg { return dueToLook{} })
	case dueToLook:
		return t, t.look
	case tea.WindowSizeMsg:
		t.width, t.height = event.Width, event.Height
	case tea.KeyMsg:
		switch event.String() {
		case "q", "Q", "esc", "ctrl+c":
			return t, tea.Quit
		case "ctrl+z":
			return t, tea.Suspend
		}
	}
	return t, nil
}

// take keeps what was seen. Looks at a process that has ended since say
// nothing about the one that runs now.
func (t *top) take(l looked) {
	t.err = l.err
	if l.err != nil {
		return
	}
	if n := len(t.seen); n > 0 && !l.sight.sameProcess(t.seen[n-1].scrape) {
		t.seen = nil
	}
	t.seen = append(t.seen, l.sight)
	t.seen = t.seen[max(0, len(t.seen)-latencyWindow-1):]
}
