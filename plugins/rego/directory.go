package rego

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	// readPatience is for how long a directory may change while it is read.
	readPatience = 10 * time.Second
	// lookAgain is how long to wait before a directory that changes is read again.
	lookAgain = 50 * time.Millisecond
	// fineGrain and coarseGrain are how long after its time of modification a
	// file may change again and keep that time: a tick of the kernel; two seconds
	// on file systems and servers that keep whole seconds.
	fineGrain   = 20 * time.Millisecond
	coarseGrain = 2 * time.Second
)

// room is where files are: a directory, a file, or what is built in.
type room struct {
	fsys fs.FS
	name string   // as in messages
	only []string // the names of single files; nil: the whole directory
}

func directoryRoom(dir string) room { return room{fsys: os.DirFS(dir), name: dir} }

// look is what a room looks like: names, sizes, times and inodes of its files,
// or why nothing can be seen.
type look struct {
	files []entry
	root  fs.FileInfo
	err   error
}

// entry is a file, and which it is when links are followed.
type entry struct {
	path string
	info fs.FileInfo
}

// look looks at all files that would be read.
func (r room) look() look {
	root, err := fs.Stat(r.fsys, ".")
	if err != nil {
		return look{err: cause(err)}
	}
	l := look{root: root}
	if r.only != nil {
		l.err = r.single(&l)
	} else {
		l.err = r.walk(&l, ".", []fs.FileInfo{root})
	}
	slices.SortFunc(l.files, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return l
}

func (r room) single(l *look) error {
	for _, name := range r.only {
		info, err := fs.Stat(r.fsys, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, cause(err))
		}
		l.files = append(l.files, entry{name, info})
	}
	return nil
}

// walk adds the files of a directory. Links are followed, since Kubernetes shows
// all it mounts as links; above are the directories on the way, so that a link
// into one of them is noticed.
func (r room) walk(l *look, dir string, above []fs.FileInfo) error {
	entries, err := fs.ReadDir(r.fsys, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, cause(err))
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := r.add(l, path.Join(dir, e.Name()), above); err != nil {
			return err
		}
	}
	return nil
}

func (r room) add(l *look, name string, above []fs.FileInfo) error {
	info, err := fs.Stat(r.fsys, name)
	switch {
	case err != nil && !wanted(name):
		return nil // a link to nowhere that nobody asked for
	case err != nil:
		return fmt.Errorf("%s: %w", name, cause(err))
	case info.IsDir():
		if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return a.Sys() != nil && os.SameFile(a, info) }) {
			return fmt.Errorf("%s: the link leads back to a directory that it is in", name)
		}
		if len(above) > maxDepth {
			return fmt.Errorf("%s: expected at most %d directories below each other", name, maxDepth)
		}
		return r.walk(l, name, append(above[:len(above):len(above)], info))
	case !info.Mode().IsRegular() || !wanted(name):
		return nil
	case len(l.files) == maxFiles:
		return errTooMuch
	}
	l.files = append(l.files, entry{name, info})
	return nil
}

// equal tells whether two looks show the same.
func (l look) equal(other look) bool {
	if l.err != nil || other.err != nil {
		return l.err != nil && other.err != nil && l.err.Error() == other.err.Error()
	}
	return sameFile(l.root, other.root) && slices.EqualFunc(l.files, other.files, func(a, b entry) bool {
		return a.path == b.path && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime()) && sameFile(a.info, b.info)
	})
}

// sameFile compares inodes. What is built in has none.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) || !isOnDisk(a) && !isOnDisk(b)
}

func isOnDisk(info fs.FileInfo) bool { return os.SameFile(info, info) }

// settles returns for how long a file of the look may yet be changed without
// that being seen, since it was changed so lately.
func (l look) settles(now time.Time) time.Duration {
	var wait time.Duration
	for _, e := range l.files {
		grain := fineGrain
		if e.info.ModTime().Nanosecond() == 0 {
			grain = coarseGrain
		}
		if age := now.Sub(e.info.ModTime()); isOnDisk(e.info) && age >= 0 { // else its clock isn't ours
			wait = max(wait, grain-age)
		}
	}
	return wait
}

// read returns all files, as they were at one moment, with their paths within
// the room; and what the room looked like before.
func (r room) read(ctx context.Context) ([]file, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readPatience, fmt.Errorf("it has been changing for %s, and can't be read as a whole", readPatience))
	defer cancel()
	for {
		before := r.look()
		files, err := r.readFiles(before)
		after := r.look()
		wait := after.settles(time.Now())
		switch {
		case !before.equal(after):
			wait = lookAgain
		case err != nil:
			return nil, fmt.Errorf("%s: %w", r.name, err)
		case wait <= 0:
			return files, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
}

// readFiles reads what a look has seen.
func (r room) readFiles(l look) ([]file, error) {
	if l.err != nil {
		return nil, l.err
	}
	files := make([]file, 0, len(l.files))
	total := 0
	for _, e := range l.files {
		text, err := readFile(r.fsys, e.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, cause(err))
		}
		if total += len(text); len(text) > maxFileSize || total > maxTotalSize {
			return nil, fmt.Errorf("%s: %w", e.path, errTooMuch)
		}
		files = append(files, file{path: e.path, text: text})
	}
	return files, nil
}

// readFile reads a file up to one octet more than it may have.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// cause leaves out the path that a file system puts before an error: it says
// "." where we say more.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// sleep returns early, with the reason, if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
