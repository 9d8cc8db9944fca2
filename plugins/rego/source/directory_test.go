package source

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/plugins/rego/regotest"
)

func readDirectory(t *testing.T, dir string) (string, error) {
	t.Helper()
	files, err := DirectoryRoom(dir).read(t.Context())
	var names []string
	for _, f := range files {
		names = append(names, f.Path+"="+string(f.Text))
	}
	return strings.Join(names, " "), err
}

func TestReadDirectory(t *testing.T) {
	dir := regotest.RoomOf(t, map[string]string{
		"b.rego": "b", "a_test.rego": "at", "d.json": "d", "z/y/e.yaml": "e", "z/f.yml": "f", "notes.txt": "n",
		".hidden.rego": "h", ".git/x.rego": "x", "..data/k.rego": "k", ".manifest": "m", ".signatures.json": "s", ".regal/config.yaml": "r",
		"schema/question.schema.json": "q", "capabilities.json": "c", "old.rego/inner.rego": "i",
	})
	if err := os.Symlink(filepath.Join("..data", "k.rego"), filepath.Join(dir, "k.rego")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.rego"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "a_test.rego=at b.rego=b d.json=d k.rego=k old.rego/inner.rego=i z/f.yml=f z/y/e.yaml=e"
	if got, err := readDirectory(t, dir); err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if got, err := readDirectory(t, link); err != nil || got != want {
		t.Errorf("through a link: %s, %v", got, err)
	}
	inner := filepath.Join(dir, "z", "linked")
	if err := os.Symlink(t.TempDir(), inner); err != nil {
		t.Fatal(err)
	}
	regotest.Put(t, inner, map[string]string{"l.rego": "l"})
	if got, err := readDirectory(t, dir); err != nil || !strings.Contains(got, "z/linked/l.rego=l") {
		t.Errorf("a linked directory: %s, %v", got, err)
	}
}

func TestReadDirectoryRefuses(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1) + "a.rego"
	many := map[string]string{}
	for i := range maxFiles + 1 {
		many[fmt.Sprintf("%d.rego", i)] = ""
	}
	for name, c := range map[string]struct {
		texts map[string]string
		links map[string]string
		want  string
	}{
		"too deep":       {map[string]string{deep: ""}, nil, "expected at most 16 directories below each other"},
		"too many":       {many, nil, "expected at most 2000 files"},
		"too large":      {map[string]string{"a.json": strings.Repeat(" ", MaxFileSize+1)}, nil, "a.json: expected at most"},
		"a loop":         {map[string]string{"sub/a.rego": ""}, map[string]string{"sub/up": ".."}, "sub/up: the link leads back"},
		"a dead policy":  {nil, map[string]string{"a.rego": "nowhere"}, "a.rego: the link leads to nowhere, which isn't there"},
		"a link to self": {nil, map[string]string{"a.rego": "a.rego"}, "a.rego: too many levels"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := regotest.RoomOf(t, c.texts)
			for from, to := range c.links {
				if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := readDirectory(t, dir)
			regotest.Wants(t, err, dir, c.want)
		})
	}
	_, err := readDirectory(t, filepath.Join(t.TempDir(), "missing"))
	regotest.Wants(t, err, "missing: no such file or directory")
}

// writer is a directory that somebody writes to each time a file is read.
type writer struct {
	fstest.MapFS
	write func(fstest.MapFS)
}

// Open is fs.FS.
func (w writer) Open(name string) (fs.File, error) {
	f, err := w.MapFS.Open(name)
	if IsPolicy(name) {
		w.write(w.MapFS)
	}
	return f, err
}

func TestReadAgainWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for times, want := range map[int]string{3: "", 1_000_000: "dir: it has been changing for 10s, and can't be read as a whole"} {
			writes := 0
			fsys := writer{fstest.MapFS{"a.rego": {Data: []byte("old")}}, func(m fstest.MapFS) {
				if writes < times {
					writes++
					m["a.rego"] = &fstest.MapFile{Data: fmt.Appendf(nil, "new %d", writes), ModTime: time.Unix(int64(writes), 1)}
				}
			}}
			files, err := Room{fsys: fsys, name: "dir"}.read(t.Context())
			if want != "" {
				regotest.Wants(t, err, want)
				continue
			}
			if err != nil || string(files[0].Text) != "new 3" {
				t.Errorf("got %v, %v", files, err)
			}
		}
	})
}

// A file that was changed a moment ago may change again without that being seen:
// reading waits that out.
func TestReadWaitsForTheClockOfTheFiles(t *testing.T) {
	dir := regotest.RoomOf(t, map[string]string{"a.rego": "a"})
	l := DirectoryRoom(dir).Look()
	at := l.Files[0].info.ModTime()
	if got := l.settles(at.Add(5 * time.Millisecond)); got != fineGrain-5*time.Millisecond {
		t.Errorf("fine: %s", got)
	}
	if got := l.settles(at.Add(time.Hour)) + l.settles(at.Add(-time.Hour)); got != 0 {
		t.Errorf("long ago, or a clock that is ahead: %s", got)
	}
	whole := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(filepath.Join(dir, "a.rego"), whole, whole); err != nil {
		t.Fatal(err)
	}
	if got := DirectoryRoom(dir).Look().settles(whole.Add(time.Second)); got != coarseGrain-time.Second {
		t.Errorf("coarse: %s", got)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fsys := writer{fstest.MapFS{"a.rego": {}}, func(m fstest.MapFS) {
		m["a.rego"] = &fstest.MapFile{Data: append(m["a.rego"].Data, 'x')}
	}}
	_, err := Room{fsys: fsys, name: "dir"}.read(ctx)
	regotest.Wants(t, err, "context canceled")
}
