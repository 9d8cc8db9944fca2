package pebble

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/imgate/imgate/engine/plugin"
)

// TestPurge: what was deleted is in no table file any more.
func TestPurge(t *testing.T) {
	disk := vfs.NewMem()
	s := opened(t, disk)
	f := acquired(t, s, "gw1")
	secret := []byte("what somebody wrote to somebody")
	apply := func(c plugin.Change) {
		t.Helper()
		if err := s.Apply(t.Context(), f, []plugin.Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	apply(plugin.Change{Table: "messages", Key: []byte("1"), Value: secret})
	apply(plugin.Change{Table: "history", Key: []byte("1"), Value: []byte("stays")})
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := tablesWith(t, disk, secret); n == 0 {
		t.Fatal("the text is in no file: the test proves nothing")
	}
	apply(plugin.Change{Table: "messages", Key: []byte("1")})
	if err := s.purge.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for tablesWith(t, disk, secret) > 0 { // Pebble removes files in a goroutine of its own
		if time.Now().After(deadline) {
			t.Fatal("the text is still in a file")
		}
		time.Sleep(time.Millisecond)
	}
	if rows, err := s.Scan(t.Context(), "history", nil, nil, 10); err != nil || len(rows) != 1 {
		t.Errorf("what wasn't deleted: %d rows, %v", len(rows), err)
	}
	if tables := s.purge.take(); len(tables) != 0 {
		t.Errorf("%v is to be purged again", tables)
	}
}

// tablesWith counts the table files with a text in them that Pebble still has.
func tablesWith(t *testing.T, disk vfs.FS, text []byte) (n int) {
	t.Helper()
	names, err := disk.List("data/pebble")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		file, err := disk.Open(disk.PathJoin("data/pebble", name))
		if err != nil {
			continue // Pebble has just deleted it
		}
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, info.Size())
		if _, err := file.ReadAt(content, 0); err != nil {
			t.Fatal(err)
		}
		file.Close()
		if bytes.Contains(content, text) {
			n++
		}
	}
	return n
}
