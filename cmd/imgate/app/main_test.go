package app

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary behave as imgate.
const asProgram = "APP_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main(tinyPlugins()...))
	}
	forgetVariables()
	os.Exit(m.Run())
}

// forgetVariables: what whoever runs the tests has in the environment for
// servers of their own isn't for these.
func forgetVariables() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "IMGATE_") {
			os.Unsetenv(name)
		}
	}
}

// process starts imgate as a process of its own.
func process(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], args...)
	command.Dir = t.TempDir()
	command.Env = append(os.Environ(), asProgram+"=yes", "IMGATE_ADMIN_LISTEN=127.0.0.1:0")
	command.WaitDelay = time.Second
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return command, bufio.NewReader(out)
}

func awaitLine(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	line, err := out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		t.Fatalf("%q, %v; want %q", line, err, want)
	}
}

func TestSIGTERMEndsTheServerInOrder(t *testing.T) {
	command, out := process(t, "serve")
	awaitLine(t, out, "IMGate runs")
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	if err := command.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	command, out := process(t, "say", "hang")
	awaitLine(t, out, "hanging")
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, out, "told")
	// The handler is put away beside the command, so the signal may have to be
	// sent more than once.
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		_ = command.Process.Signal(syscall.SIGTERM) // fails once it has ended
		select {
		case <-ended:
			status := command.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGTERM {
				t.Errorf("it ended with %v", command.ProcessState)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
