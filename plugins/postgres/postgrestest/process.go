package postgrestest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// findBinaries returns the folder of PostgreSQL's programs: the one in PATH, or
// the newest of those that Debian puts aside.
func findBinaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL isn't installed: neither in PATH nor in /usr/lib/postgresql")
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// version is that of /usr/lib/postgresql/15/bin/initdb.
func version(path string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	if err != nil {
		return 0
	}
	return n
}

// freePort returns a port that nobody listens on. It is below those that the
// system gives to clients, so that none has it while the server is down.
func freePort() (int, error) {
	const lowest, ports, tries = 20_000, 12_000, 100
	for range tries {
		port := lowest + rand.IntN(ports)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port found")
}

// account is a user of this machine. Nil is whoever runs the test.
type account struct{ uid, gid int }

// whoRuns returns who is to run the server: PostgreSQL refuses root.
func whoRuns() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(u.Gid)
		return &account{uid: uid, gid: gid}, err
	}
	return nil, errors.New("PostgreSQL doesn't run as root, and there is neither a user postgres nor nobody")
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

func (a *account) attributes() *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
}

// postmaster is the server's first process, the parent of all others.
type postmaster struct {
	pid   int
	ended chan struct{} // closed when it has ended
}

// launch starts the server's process.
func (s *Server) launch() (*postmaster, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	settings := append([]string{
		"listen_addresses=127.0.0.1", fmt.Sprintf("port=%d", s.port), "unix_socket_directories=",
		"shared_buffers=64MB", "timezone=UTC", "log_min_messages=warning",
	}, s.settings...)
	cmd := exec.Command(filepath.Join(s.binaries, "postgres"), "-D", s.data())
	for _, setting := range settings {
		cmd.Args = append(cmd.Args, "-c", setting)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = s.account.attributes()
	// In a group of its own, a stopped server is continued when this process
	// ends, and then gets the signal.
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	return launch(cmd)
}

// launch starts a process on a thread that lives as long as it does: what is
// called the death of the parent is that of the thread.
func launch(cmd *exec.Cmd) (*postmaster, error) {
	p := &postmaster{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // that it ended by a signal is what was wanted
			close(p.ended)
		}
	}()
	return p, <-started
}

// stop ends the server at once. One that doesn't end is killed.
func (p *postmaster) stop() error {
	if err := p.thaw(); err != nil {
		return err
	}
	if err := p.signal(syscall.SIGQUIT); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopWithin):
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.ended
	return errors.New("it had to be killed")
}

// signal sends a signal to the first process, if it still runs.
func (p *postmaster) signal(s syscall.Signal) error {
	select {
	case <-p.ended:
		return nil
	default:
		return send(p.pid, s)
	}
}

// freeze stops the parent first, so that no child is born meanwhile.
func (p *postmaster) freeze() error {
	return errors.Join(p.signal(syscall.SIGSTOP), p.signalChildren(syscall.SIGSTOP))
}

func (p *postmaster) thaw() error {
	return errors.Join(p.signalChildren(syscall.SIGCONT), p.signal(syscall.SIGCONT))
}

func (p *postmaster) signalChildren(s syscall.Signal) error {
	children, err := childrenOf(p.pid)
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := send(pid, s); err != nil {
			return err
		}
	}
	return nil
}

// send doesn't mind a process that has ended.
func send(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", s, pid, err)
	}
	return nil
}

func childrenOf(parent int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// "12 (name) S 1 …": the name may have anything in it.
		_, behind, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		fields := strings.Fields(behind)
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		children = append(children, pid)
	}
	return children, nil
}
