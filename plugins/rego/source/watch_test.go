package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/policies"
)

// watching begins a watch of a source that was read.
func watching(t *testing.T, s *Watcher) chan error {
	t.Helper()
	s.Begin()
	done := make(chan error, 1)
	go func() { done <- s.Wait(t.Context()) }()
	return done
}

// shelf is a directory in memory.
type shelf struct{ files atomic.Pointer[fstest.MapFS] }

// hold makes it hold these files and no others.
func (s *shelf) hold(names ...string) {
	files := fstest.MapFS{}
	for _, name := range names {
		files[name] = &fstest.MapFile{}
	}
	s.files.Store(&files)
}

func (s *shelf) look() look { return Room{fsys: *s.files.Load(), name: "dir"}.Look() }

// Each way in which files are replaced is noticed.
func TestWatchNotices(t *testing.T) {
	rename := func(dir, from, to string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	write := func(dir, name, text string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
	for name, change := range map[string]func(dir, link string) error{
		"an edit in place":   func(dir, _ string) error { return write(dir, "a.rego", "changed") },
		"an edit of as many": func(dir, _ string) error { return write(dir, "a.rego", "B") },
		"a rename over": func(dir, _ string) error {
			return errors.Join(write(dir, "new.tmp", "A"), os.Chtimes(filepath.Join(dir, "new.tmp"), time.Unix(1, 1), time.Unix(1, 1)), rename(dir, "new.tmp", "a.rego"))
		},
		"an edit whose time is set back": func(dir, _ string) error {
			info, err := os.Stat(filepath.Join(dir, "a.rego"))
			if err != nil {
				return err
			}
			return errors.Join(write(dir, "a.rego", "B"), os.Chtimes(filepath.Join(dir, "a.rego"), info.ModTime(), info.ModTime()))
		},
		"a file more":         func(dir, _ string) error { return write(dir, "b.yaml", "") },
		"a file less":         func(dir, _ string) error { return os.Remove(filepath.Join(dir, "a.rego")) },
		"another name":        func(dir, _ string) error { return rename(dir, "a.rego", "b.rego") },
		"a file further down": func(dir, _ string) error { return write(dir, "sub/c.rego", "C") },
		"a link that is swapped": func(dir, link string) error {
			other := filepath.Join(filepath.Dir(dir), "other")
			return errors.Join(os.CopyFS(other, os.DirFS(dir)), os.Symlink(other, link+".new"), os.Rename(link+".new", link))
		},
		"a directory that goes": func(dir, _ string) error { return os.RemoveAll(dir) },
		"times alone": func(dir, _ string) error {
			return os.Chtimes(filepath.Join(dir, "a.rego"), time.Unix(9, 0), time.Unix(9, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, link := filepath.Join(base, "dir"), filepath.Join(base, "link")
			regotest.Put(t, dir, map[string]string{"a.rego": "A", "sub/c.rego": "c", "ignored.txt": "x"})
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				done := watching(t, NewWatcher(Config{Dir: link}))
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					t.Fatalf("nothing has changed, and it returned %v", err)
				default:
				}
				if err := change(dir, link); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < quiet || took > quiet+2*watchEvery {
					t.Errorf("noticed after %s, want about %s", took, quiet)
				}
			})
		})
	}
}

// A directory that comes back is noticed, and so is one that was never there.
func TestWatchMissingDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	synctest.Test(t, func(t *testing.T) {
		config := Config{Dir: dir}
		s := NewWatcher(config)
		_, err := Open(t.Context(), config)
		regotest.Wants(t, err, "no such file")
		for range 2 {
			done := watching(t, s)
			time.Sleep(time.Minute)
			regotest.Put(t, dir, map[string]string{"a.rego": "a"})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			done = watching(t, s)
			time.Sleep(time.Minute)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Many files that come one after another are one change; what never stops is
// taken all the same.
func TestWatchWaitsForQuiet(t *testing.T) {
	for name, c := range map[string]struct {
		writes   int
		from, to time.Duration
	}{
		"many files": {5, 4 * time.Second, 6 * time.Second},
		"no end":     {100, unquiet - time.Second, unquiet + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var files shelf
				files.hold("a.rego")
				s := &Watcher{look: files.look}
				done := watching(t, s)
				time.Sleep(unquiet + time.Millisecond)
				began := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					for i := range c.writes {
						files.hold("a.rego", fmt.Sprintf("%d.rego", i))
						if sleep(ctx, 800*time.Millisecond) != nil {
							return
						}
					}
				}()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				cancel()
				if took := time.Since(began); took < c.from || took > c.to {
					t.Errorf("returned after %s, want %s to %s", took, c.from, c.to)
				}
			})
		})
	}
}

// A read that somebody else asked for is what the watch compares with.
func TestWatchKnowsWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files shelf
		files.hold("a.rego")
		s := &Watcher{look: files.look}
		done := watching(t, s)
		time.Sleep(time.Minute + time.Millisecond)
		files.hold("a.rego", "b.rego")
		time.Sleep(watchEvery)
		s.Begin()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Errorf("it returned %v", err)
		default:
		}
		files.hold()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchBuiltIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := NewWatcher(Config{}).Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	if len(policies.Default) == 0 {
		t.Error("nothing is built in")
	}
}
