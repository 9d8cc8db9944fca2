package source

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

// Room is where files are: a directory, a file, or what is built in.
type Room struct {
	fsys fs.FS
	name string   // as in messages
	only []string // the names of single files; nil: the whole directory
}

// DirectoryRoom is a directory with all below it.
func DirectoryRoom(dir string) Room { return Room{fsys: os.DirFS(dir), name: dir} }

// look is what a room looks like: names, sizes, times and inodes of its files,
// or why nothing can be seen.
type look struct {
	Files []entry
	root  fs.FileInfo
	Err   error
}

// entry is a file, and which it is when links are followed.
type entry struct {
	Path string
	info fs.FileInfo
}

// Look looks at all files that would be read.
func (r Room) Look() look {
	root, err := fs.Stat(r.fsys, ".")
	if err != nil {
		return look{Err: r.inFile(".", cause(err))}
	}
	l := look{root: root}
	if r.only != nil {
		l.Err = r.single(&l)
	} else {
		l.Err = r.walk(&l, ".", []fs.FileInfo{root})
	}
	slices.SortFunc(l.Files, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	return l
}

func (r Room) single(l *look) error {
	for _, name := range r.only {
		info, err := fs.Stat(r.fsys, name)
		if err != nil {
			return r.unseen(name, err)
		}
		if !info.Mode().IsRegular() { // to open a pipe may take for ever
			return r.inFile(name, errors.New("expected a file"))
		}
		l.Files = append(l.Files, entry{name, info})
	}
	return nil
}

// walk adds the files of a directory. Links are followed, since Kubernetes shows
// all it mounts as links; above are the directories on the way, so that a link
// into one of them is noticed.
func (r Room) walk(l *look, dir string, above []fs.FileInfo) error {
	entries, err := fs.ReadDir(r.fsys, dir)
	if err != nil {
		return r.inFile(dir, cause(err))
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

func (r Room) add(l *look, name string, above []fs.FileInfo) error {
	info, err := fs.Stat(r.fsys, name)
	switch {
	case err != nil && !Wanted(name):
		return nil // a link to nowhere that nobody asked for
	case err != nil:
		return r.unseen(name, err)
	case info.IsDir():
		if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return a.Sys() != nil && os.SameFile(a, info) }) {
			return r.inFile(name, errors.New("the link leads back to a directory that it is in"))
		}
		if len(above) > maxDepth {
			return r.inFile(name, fmt.Errorf("expected at most %d directories below each other", maxDepth))
		}
		return r.walk(l, name, append(above[:len(above):len(above)], info))
	case !info.Mode().IsRegular() || !Wanted(name):
		return nil
	case len(l.Files) == maxFiles:
		return r.inFile(".", errTooMuch)
	}
	l.Files = append(l.Files, entry{name, info})
	return nil
}

// inFile puts before an error where it is; "." is the room.
func (r Room) inFile(name string, err error) error {
	if name == "." {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return fmt.Errorf("%s: %w", path.Join(r.name, name), err)
}

// unseen says why nothing can be seen of a file that is listed.
func (r Room) unseen(name string, err error) error {
	target, unlinked := fs.ReadLink(r.fsys, name)
	if unlinked != nil || !errors.Is(err, fs.ErrNotExist) {
		return r.inFile(name, cause(err))
	}
	return r.inFile(name, fmt.Errorf("the link leads to %s, which isn't there", target))
}

// equal tells whether two looks show the same.
func (l look) equal(other look) bool {
	if l.Err != nil || other.Err != nil {
		return l.Err != nil && other.Err != nil && l.Err.Error() == other.Err.Error()
	}
	return sameFile(l.root, other.root) && slices.EqualFunc(l.Files, other.Files, func(a, b entry) bool {
		return a.Path == b.Path && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime()) &&
			changed(a.info) == changed(b.info) && sameFile(a.info, b.info)
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
	for _, e := range l.Files {
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
func (r Room) read(ctx context.Context) ([]File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readPatience, fmt.Errorf("it has been changing for %s, and can't be read as a whole", readPatience))
	defer cancel()
	for {
		before := r.Look()
		files, err := r.readFiles(before)
		after := r.Look()
		wait := after.settles(time.Now())
		switch {
		case !before.equal(after):
			wait = lookAgain
		case err != nil:
			return nil, err
		case wait <= 0:
			return files, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
}

// readFiles reads what a look has seen.
func (r Room) readFiles(l look) ([]File, error) {
	if l.Err != nil {
		return nil, l.Err
	}
	files := make([]File, 0, len(l.Files))
	total := 0
	for _, e := range l.Files {
		text, err := readFile(r.fsys, e.Path)
		if err != nil {
			return nil, r.inFile(e.Path, cause(err))
		}
		if total += len(text); len(text) > MaxFileSize || total > maxTotalSize {
			return nil, r.inFile(e.Path, errTooMuch)
		}
		files = append(files, File{Path: e.Path, Text: text})
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
	return io.ReadAll(io.LimitReader(f, MaxFileSize+1))
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
