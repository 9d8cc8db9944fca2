//go:build process

package main_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/transports/sip/ua"
)

// TestTextLeavesTheDisk: while a message waits its text is kept; once it has
// ended, no command shows it, and after a restart no file has it.
func TestTextLeavesTheDisk(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob"})
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	expect(t, alice, "bob", secretText, 202)
	if found := filesWith(t, filepath.Dir(s.config), secretText); len(found) == 0 {
		t.Error("no file has the text of a message that waits")
	}

	bob := dial(t, s, "bob", func(ua.Incoming) bool { return true })
	defer bob.Close()
	register(t, bob)
	s.eventually("the message is delivered", func() bool { return s.metric("imgate_spool_messages") == 0 })
	shown := s.imgate("message", "list", "--state", "delivered", "--output", "json")
	id, _, _ := strings.Cut(strings.TrimPrefix(shown, `{"id":"`), `"`)
	for _, command := range [][]string{
		{"message", "list"}, {"message", "show", id}, {"message", "show", id, "--output", "json"},
		{"trace", id}, {"trace", id, "--output", "json"}, {"cdr", "export"},
	} {
		out := s.imgate(command...)
		if !strings.Contains(out, "bob") || strings.Contains(out, secretText) {
			t.Errorf("imgate %v prints\n%s", command, out)
		}
	}
	s.stop()
	s.start()
	if found := filesWith(t, filepath.Dir(s.config), secretText); len(found) > 0 {
		t.Errorf("the text of a message that was delivered is still in %v", found)
	}
}

// filesWith returns the files below a directory that have a text in them.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if bytes.Contains(content, []byte(text)) {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
