package exampletest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// commandWithin bounds one command of a page.
const commandWithin = 90 * time.Second

// Shell is a bash at work, whose path leads to the program.
type Shell struct {
	t     *testing.T
	in    io.Writer
	lines chan string
	n     int
}

// OpenShell builds the program and starts a shell in a folder. It ends with the
// test, and with it what runs in its background.
func OpenShell(t *testing.T, folder string) *Shell {
	t.Helper()
	programs := t.TempDir()
	Build(t, programs)
	bash := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc")
	bash.Dir = folder
	bash.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "NO_COLOR=1", "COLUMNS=120")
	out, write := io.Pipe()
	bash.Stdout, bash.Stderr = write, write
	in, err := bash.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bash.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Shell{t: t, in: in, lines: make(chan string, 10_000)}
	go s.read(out)
	t.Cleanup(func() {
		fmt.Fprintln(in, "kill $(jobs -p) 2>/dev/null; wait; exit")
		in.Close()
		_ = bash.Wait()
		write.Close()
	})
	return s
}

func (s *Shell) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.lines <- lines.Text()
	}
	close(s.lines)
}

// Follow types what a page says, in its order, and compares what is printed:
// the page's lines must come in their order, others may stand between them, …
// stands for anything. Every command must end with 0, and there must be at least
// so many. The ports of the page are replaced by some that are free here.
func (s *Shell) Follow(page string, least int, ports *strings.Replacer) {
	s.t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		s.t.Fatal(err)
	}
	commands := readConsole(string(text))
	if len(commands) < least {
		s.t.Fatalf("%s: only %d commands were found", page, len(commands))
	}
	name := filepath.Base(page)
	for _, c := range commands {
		out, status := s.run(ports.Replace(c.text))
		if status != 0 {
			s.t.Fatalf("%s:%d: %s\nexit status %d:\n%s", name, c.line, c.text, status, out)
		}
		if missing := c.missing(ports, out); missing != "" {
			s.t.Fatalf("%s:%d: %s\nexpected a line like\n\t%s\nbut it prints\n%s", name, c.line, c.text, missing, out)
		}
	}
}

// run types a command and returns what is printed until it is done. What runs
// in the background may print between.
func (s *Shell) run(command string) (out string, status int) {
	s.t.Helper()
	s.n++
	end := fmt.Sprintf("==end %d==", s.n)
	fmt.Fprintf(s.in, "%s\necho \"%s $?\"\n", command, end)
	var text strings.Builder
	deadline := time.After(commandWithin)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the shell ended after\n%s", text.String())
			}
			if before, after, found := strings.Cut(line, end); found {
				text.WriteString(before)
				if _, err := fmt.Sscan(after, &status); err != nil {
					s.t.Fatal(err)
				}
				return text.String(), status
			}
			text.WriteString(line + "\n")
		case <-deadline:
			s.t.Fatalf("%s\nisn't done after %v:\n%s", command, commandWithin, text.String())
		}
	}
}

// typed is a command of a page and what the page shows of its output.
type typed struct {
	line int
	text string
	want []string
}

// readConsole reads the blocks that are marked as console: "$ " begins a
// command, "> " continues it, the rest is output.
func readConsole(page string) (commands []typed) {
	inside := false
	line := 0
	for text := range strings.Lines(page) {
		line++
		text = strings.TrimRight(text, "\n")
		switch {
		case strings.HasPrefix(text, "```"):
			inside = text == "```console"
		case !inside:
		case strings.HasPrefix(text, "$ "):
			commands = append(commands, typed{line: line, text: text[2:]})
		case strings.HasPrefix(text, "> "), text == ">":
			commands[len(commands)-1].text += "\n" + strings.TrimPrefix(text[1:], " ")
		case strings.TrimSpace(text) != "":
			last := &commands[len(commands)-1]
			last.want = append(last.want, text)
		}
	}
	return commands
}

// missing returns the first line of the page that the output doesn't have.
func (c typed) missing(ports *strings.Replacer, out string) string {
	lines := strings.Split(out, "\n")
	for _, want := range c.want {
		expression := pattern(ports.Replace(strings.TrimSpace(want)))
		found := false
		for !found && len(lines) > 0 {
			found = expression.MatchString(strings.TrimSpace(lines[0]))
			lines = lines[1:]
		}
		if !found {
			return want
		}
	}
	return ""
}

// columns are gaps between columns: how wide one is depends on what is in it.
var columns = regexp.MustCompile(` {2,}`)

// pattern is what a line of the page stands for.
func pattern(line string) *regexp.Regexp {
	text := strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
	return regexp.MustCompile("^" + columns.ReplaceAllString(text, `\s+`) + "$")
}
