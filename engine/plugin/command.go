package plugin

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Command is a subcommand that a plugin adds to imgate.
type Command struct {
	Path  string // its words: "account add"
	Args  string // what follows, for the usage line: "ADDRESS TEXT"
	Short string // one line, lower case, no full stop
	Long  string // what the one line can't say; may be empty
	// Setup declares the command's flags and returns what runs it.
	Setup func(flags *flag.FlagSet) Run
}

// Choice is a flag that takes one of some words; any other is wrong usage.
type Choice struct {
	Value string // what was chosen
	words []string
}

// NewChoice declares the flag; the first word is the default. usage says what it
// does: "print as".
func NewChoice(flags *flag.FlagSet, name, usage string, words ...string) *Choice {
	c := &Choice{Value: words[0], words: words}
	flags.Var(c, name, usage+" `"+strings.Join(words, "|")+"`")
	return c
}

// String is flag.Value. Package flag calls it on a zero value too.
func (c *Choice) String() string { return c.Value }

// Set is flag.Value.
func (c *Choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("expected %s", strings.Join(c.words, " or "))
	}
	c.Value = word
	return nil
}

// Run does a command's work. An error is printed and makes the exit status 1,
// or 2 if it is an ErrUsage.
type Run func(ctx context.Context, in Invocation) error

// ErrUsage is an error that says that a command was called wrongly.
type ErrUsage struct{ Err error }

// Usage makes an ErrUsage: "expected an ADDRESS".
func Usage(format string, args ...any) error { return ErrUsage{fmt.Errorf(format, args...)} }

// Error says what was expected.
func (e ErrUsage) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e ErrUsage) Unwrap() error { return e.Err }

// Invocation is a command at work.
type Invocation struct {
	Args     []string // those that aren't flags
	In       io.Reader
	Out, Err io.Writer
	Admin    AdminClient
	// Settings is the configuration of the first instance of the plugin that
	// brought the command, its defaults if there is none: a *C as in Define.
	Settings Config
	// Protocols says what is spoken over the transports that a plan may name: the
	// configured instances, and the plugins of this program.
	Protocols map[string]string
}

// AdminClient talks to the admin API of the running server.
type AdminClient interface {
	// Call sends a request with body as JSON, or none if body is nil, and
	// decodes the answer into answer unless that is nil. path begins with
	// "/v1/". An error is in words for the person at the terminal.
	Call(ctx context.Context, method, path string, body, answer any) error
	// Stream sends what a reader gives and copies the answer's body to out.
	Stream(ctx context.Context, method, path, contentType string, body io.Reader, out io.Writer) error
}
