//go:build package

package main_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchdog is how long the service manager of these tests waits for a sign of
// life.
const watchdog = 2 * time.Second

// service is the server as its unit says that it is started, and the end of
// the service manager that it talks to.
type service struct {
	t       *testing.T
	process *exec.Cmd
	ended   chan error
	told    *net.UnixConn
}

// checkService plays the service manager from start to stop, while a message
// goes through.
func checkService(t *testing.T) {
	s := startService(t)
	s.expect("READY=1")
	s.exchange()

	s.expect("WATCHDOG=1")
	s.expect("WATCHDOG=1")
	s.signal(syscall.SIGHUP)
	s.expect("RELOADING=1")
	s.expect("READY=1")
	s.expect("WATCHDOG=1")

	s.signal(syscall.SIGTERM)
	s.expect("STOPPING=1")
	s.wait()
}

// unit returns what a unit says under a key.
func unit(t *testing.T, key string) string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("the unit has no %s", key)
	return ""
}

// credential is that of the user that a unit names.
func credential(t *testing.T) *syscall.Credential {
	t.Helper()
	account, err := user.Lookup(unit(t, "User"))
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func startService(t *testing.T) *service {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "imgate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { told.Close() })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	words := strings.Fields(unit(t, "ExecStart"))
	s := &service{t: t, process: exec.Command(words[0], words[1:]...), ended: make(chan error, 1), told: told}
	s.process.Dir = unit(t, "WorkingDirectory")
	s.process.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET=" + socket,
		"WATCHDOG_USEC=" + strconv.FormatInt(watchdog.Microseconds(), 10),
	}
	s.process.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t)}
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.process.Wait() }()
	t.Cleanup(func() {
		s.process.Process.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the service's log:\n%s", text)
		}
	})
	return s
}

// expect waits until the service tells an assignment. Between RELOADING and
// READY there may be signs of life, so others are passed over.
func (s *service) expect(assignment string) {
	s.t.Helper()
	if err := s.told.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for {
		n, err := s.told.Read(buffer)
		if err != nil {
			s.t.Fatalf("%s is never told: %v", assignment, err)
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == assignment {
				return
			}
		}
	}
}

func (s *service) signal(signal os.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits for the end, which must be one in order.
func (s *service) wait() {
	s.t.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("the service ends with %v", err)
		}
	case <-time.After(20 * time.Second): // the unit's TimeoutStopSec
		s.t.Error("the service doesn't end")
	}
}

// exchange sends a message to somebody who isn't there, who then comes.
func (s *service) exchange() {
	s.t.Helper()
	imgate := func(args ...string) string {
		s.t.Helper()
		return command(s.t, "/usr/bin/imgate", append(args, "--config", configFile)...)
	}
	const from, to, secret = "1001@sip.example.com", "1002@sip.example.com", "correct-horse"
	imgate("health")
	imgate("account", "add", from, "--password", secret, "--balance", "1.00")
	imgate("account", "add", to, "--password", secret)
	imgate("send", from, to, "Hello", "--password", secret)
	heard := imgate("listen", to, "--password", secret, "--count", "1", "--json")
	line := heard[max(0, strings.Index(heard, "{")):] // behind what it says of itself
	var arrived struct{ Text string }
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&arrived); err != nil || arrived.Text != "Hello" {
		s.t.Errorf("%+v arrived: %v\n%s", arrived, err, heard)
	}
}
