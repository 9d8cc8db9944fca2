//go:build process

package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestOperatingDay types what docs/operating.md says, in its order, into a
// shell in an empty directory, and compares what is printed.
func TestOperatingDay(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := readConsole(string(text))
	if len(commands) < 20 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	sh := openShell(t)
	ports := strings.NewReplacer("127.0.0.1:5060", freeBothPort(t), "127.0.0.1:8060", freePort(t, "tcp"))
	for _, c := range commands {
		out, status := sh.run(ports.Replace(c.text))
		if status != 0 {
			t.Fatalf("line %d: %s\nexit status %d:\n%s", c.line, c.text, status, out)
		}
		if missing := c.missing(ports, out); missing != "" {
			t.Fatalf("line %d: %s\nexpected a line like\n\t%s\nbut it prints\n%s", c.line, c.text, missing, out)
		}
	}
}

// freeBothPort returns an address that is free for both UDP and TCP.
func freeBothPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := freePort(t, "tcp")
		if conn, err := net.ListenPacket("udp", address); err == nil {
			conn.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// typed is a command of the page and what the page shows of its output: lines
// in order, others may stand between them, … stands for anything.
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
		pattern := strings.ReplaceAll(regexp.QuoteMeta(ports.Replace(strings.TrimSpace(want))), "…", ".*")
		// How wide a column is depends on what is in it.
		pattern = regexp.MustCompile(` {2,}`).ReplaceAllString(pattern, `\s+`)
		expression := regexp.MustCompile("^" + pattern + "$")
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

// shell is a bash at work.
type shell struct {
	t     *testing.T
	in    io.Writer
	lines chan string
	n     int
}

// commandWithin bounds one command of the page.
const commandWithin = 90 * time.Second

// openShell starts a shell whose path leads to the program.
func openShell(t *testing.T) *shell {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bin", "imgate"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	bash := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc")
	bash.Dir = work
	bash.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "NO_COLOR=1", "COLUMNS=120")
	out, write := io.Pipe()
	bash.Stdout, bash.Stderr = write, write
	in, err := bash.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bash.Start(); err != nil {
		t.Fatal(err)
	}
	sh := &shell{t: t, in: in, lines: make(chan string, 10_000)}
	go sh.read(out)
	t.Cleanup(func() {
		fmt.Fprintln(in, "kill $(jobs -p) 2>/dev/null; wait; exit")
		in.Close()
		_ = bash.Wait()
		write.Close()
	})
	return sh
}

func (s *shell) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.lines <- lines.Text()
	}
	close(s.lines)
}

// run types a command and returns what is printed until it is done. What runs
// in the background may print between.
func (s *shell) run(command string) (out string, status int) {
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
