package postgrestest

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestServer(t *testing.T) {
	s := Start(t, "work_mem=5MB")
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE SCHEMA own; CREATE TABLE own.t AS SELECT 1 AS a, NULL AS b"); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		"SELECT * FROM own.t": "1 NULL",
		"SELECT current_setting('fsync'), current_setting('work_mem')": "on 5MB",
		"SELECT rolsuper FROM pg_roles WHERE rolname = 'imgate'":       "f",
	} {
		if got := strings.Join(s.Query(t, sql)[0], " "); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	if url := s.Another("other"); len(s.QueryAt(t, url, "SELECT FROM pg_namespace WHERE nspname = 'own'")) != 0 {
		t.Error("another database isn't empty")
	}
	s.Crash()
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a connection outlived the crash")
	}
	s.Resume()
	if got := s.Query(t, "SELECT a FROM own.t"); len(got) != 1 {
		t.Errorf("after the crash: %v", got)
	}
}

func TestFrozenServerIsSilent(t *testing.T) {
	s := Start(t)
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	s.Freeze()
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(t.Context()) }()
	select {
	case err := <-answered:
		t.Errorf("frozen, it answered: %v", err)
	case <-time.After(100 * time.Millisecond):
		s.Thaw()
		if err := <-answered; err != nil {
			t.Errorf("thawed: %v", err)
		}
	}
	s.Freeze() // and it is stopped so
}

// TestServerDiesWithTheTest kills a process that runs a server, also a frozen
// one, and waits until the server is gone.
func TestServerDiesWithTheTest(t *testing.T) {
	const role = "POSTGRESTEST_ROLE"
	if how := os.Getenv(role); how != "" {
		s := Start(t)
		if how == "frozen" {
			s.Freeze()
		}
		if _, err := os.Stdout.WriteString("pid " + strconv.Itoa(s.running.pid) + " " + s.dir + "\n"); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	for _, how := range []string{"running", "frozen"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestServerDiesWithTheTest$")
			cmd.Env = append(os.Environ(), role+"="+how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 200)
			n, err := out.Read(line)
			kill := cmd.Process.Kill()
			fields := strings.Fields(string(line[:n]))
			if err != nil || kill != nil || len(fields) != 3 || fields[0] != "pid" {
				t.Fatalf("the process said %q, %v; kill: %v", line[:n], err, kill)
			}
			_ = cmd.Wait()
			t.Cleanup(func() { _ = os.RemoveAll(fields[2]) })
			pid, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			waitUntilGone(t, pid)
		})
	}
}

func waitUntilGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := syscall.Kill(pid, 0); err == syscall.ESRCH || isZombie(pid) {
			return
		}
	}
	t.Errorf("process %d outlived the one that started it", pid)
}

// isZombie: in a container nobody may fetch what it returned.
func isZombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(text), ") Z ")
}
