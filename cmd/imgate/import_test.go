//go:build process

package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	importRows   = 100_000
	importWithin = 30 * time.Second // what is promised
)

// accountsFile writes a CSV of accounts of which one line, counted from 1, may
// be another one; 0: none is.
func (s *server) accountsFile(prefix string, wrong int, text string) string {
	s.t.Helper()
	var content bytes.Buffer
	fmt.Fprintln(&content, "aor,password,balance")
	for line := 2; line <= importRows+1; line++ {
		if line == wrong {
			fmt.Fprintln(&content, text)
			continue
		}
		fmt.Fprintf(&content, "%s%06d@sip.example.com,secret%d,1.00\n", prefix, line, line)
	}
	name := filepath.Join(filepath.Dir(s.config), prefix+".csv")
	if err := os.WriteFile(name, content.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

func (s *server) accounts() int {
	return int(s.metric(`imgate_ledger_accounts{plugin="ledger",section="accounts"}`))
}

// TestImport: a hundred thousand accounts come in in time, all of them or, if
// one line is wrong, none.
func TestImport(t *testing.T) {
	s := newServer(t, "")
	s.start()
	took := time.Duration(0)
	t.Run("whole", func(t *testing.T) {
		name := s.accountsFile("good", 0, "")
		began := time.Now()
		out, progress, status := s.try("account", "import", name)
		took = time.Since(began)
		t.Logf("%d accounts in %v", importRows, took.Round(time.Millisecond))
		if status != 0 || !strings.Contains(out, "100000") && !strings.Contains(out, "100,000") {
			t.Errorf("exit status %d: %s%s", status, out, progress)
		}
		if took > 5*importWithin {
			t.Errorf("it took %v, promised are %v", took, importWithin)
		}
		if n := s.accounts(); n != importRows {
			t.Errorf("%d accounts", n)
		}
		if answer := say(t, dialOver(t, s, "udp", "good000002", nil), "good100001", "hello"); answer.Code != 401 && answer.Code != 403 {
			t.Errorf("with a wrong password a message is answered %+v", answer)
		}
	})
	for wrong, want := range map[string]string{
		"bad@sip.example.com,secret,1.oo":        "balance",
		"good000002@sip.example.com,secret,1.00": "good000002@sip.example.com",
		"bad003333@sip.example.com,secret,1.00":  "on line 3333 already",
		"bad@sip.example.com,secret":             "2 columns, expected 3",
		"bad@sip.example.com,\"secret,1.00":      "quote",
		"bad\x1b[2J@sip.example.com,secret,1.00": "address",
		"bad@sip.example.com,secret,-1.00":       "balance",
	} {
		t.Run("not at all", func(t *testing.T) {
			name := s.accountsFile("bad", 50_000, wrong)
			out, said, status := s.try("account", "import", name)
			if status != 1 {
				t.Errorf("exit status %d: %s", status, out)
			}
			if !strings.Contains(said, name+":50000: ") || !strings.Contains(said, want) {
				t.Errorf("line 50000 is %q, and what is said is\n%s", wrong, said)
			}
			if strings.Contains(said, "\x1b") || strings.Contains(said, "secret") {
				t.Errorf("what is said has a control character, or a password, in it: %q", said)
			}
			if n := s.accounts(); n != importRows {
				t.Errorf("%d accounts", n)
			}
		})
	}
	t.Run("no list at all", func(t *testing.T) { importGarbage(t, s) })
	t.Run("killed", func(t *testing.T) { killImports(t, s, took) })
	if strings.Contains(s.logged(), "secret5") {
		t.Error("a password is in the log")
	}
}

// importGarbage imports what somebody took for a list of accounts. The server
// doesn't hold it in memory.
func importGarbage(t *testing.T, s *server) {
	before := memoryOf(t, s.process.Process.Pid)
	for text, want := range map[string]string{
		"aor,password,balance\n" + strings.Repeat(",", 100<<20):           ":2: a row of more than",
		"aor,password,balance\n\"" + strings.Repeat("a,b,c\n", 100<<20/6): ":2: a row of more than",
		strings.Repeat("\x00\x1b[2J", 20<<20):                             ":1: no header",
	} {
		name := filepath.Join(filepath.Dir(s.config), "garbage.csv")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, said, status := s.try("account", "import", name)
		if status != 1 || !strings.Contains(said, name+want) || len(said) > 1000 || strings.Contains(said, "\x1b") {
			t.Errorf("exit status %d: %.500q, want %s", status, said, want)
		}
	}
	if after := memoryOf(t, s.process.Process.Pid); after > before+100<<20 {
		t.Errorf("memory grew from %d to %d MiB", before>>20, after>>20)
	}
}

// killImports kills the server at several moments of an import. Then all of its
// accounts are there or none; if none, the same file can be imported.
func killImports(t *testing.T, s *server, usual time.Duration) {
	there := s.accounts()
	for i, percent := range []int{25, 50, 65, 80, 95} {
		name := s.accountsFile(fmt.Sprintf("round%d-", i), 0, "")
		importing := exec.CommandContext(t.Context(), s.binary, "account", "import", name, "--config", s.config)
		if err := importing.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(usual * time.Duration(percent) / 100) // where in its work another process is killed
		s.kill()
		failed := importing.Wait() != nil
		s.start()
		now := s.accounts()
		t.Logf("killed after %d %% of the usual time: %d accounts more; the command failed: %t", percent, now-there, failed)
		switch {
		case now == there+importRows:
			there = now
		case now != there:
			t.Fatalf("there were %d accounts, and now there are %d", there, now)
		case !failed:
			t.Error("the command said that they are imported")
		}
	}
	again := s.accountsFile("round0-", 0, "")
	_, said, status := s.try("account", "import", again)
	if known := strings.Contains(said, ":2: "); (status == 0) == known {
		t.Errorf("importing again: exit status %d: %.300s", status, said)
	}
	if n := s.accounts(); (n-importRows)%importRows != 0 {
		t.Errorf("%d accounts", n)
	}
}
