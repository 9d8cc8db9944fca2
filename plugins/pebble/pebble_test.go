package pebble

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Storage(t, func(t plugintest.T) plugintest.StorageHarness {
		env := plugin.Env{DataDir: t.TempDir(), Log: discard()}
		return plugintest.StorageHarness{Open: func(t plugintest.T) plugin.Storage {
			s, err := plugin.Open[plugin.Storage](t.Context(), Plugin, env, Plugin.NewConfig())
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			return s
		}}
	})
}

// TestPowerCut cuts the power after each Apply: what was acknowledged is there,
// and fences go on growing.
func TestPowerCut(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := opened(t, disk)
	f := acquired(t, s, "gw1")
	for i := range 20 {
		key := []byte{byte(i)}
		if err := s.Apply(t.Context(), f, []plugin.Change{{Table: "spool", Key: key, Value: key}}); err != nil {
			t.Fatal(err)
		}
		after := opened(t, disk.CrashClone(vfs.CrashCloneCfg{}))
		rows, err := after.Scan(t.Context(), "spool", nil, nil, 100)
		if err != nil || len(rows) != i+1 {
			t.Fatalf("%d rows after %d were acknowledged, %v", len(rows), i+1, err)
		}
		if again := acquired(t, after, "gw1"); again <= f {
			t.Fatalf("fence %d after %d", again, f)
		}
	}
}

func TestLeaseEndsWithTheProcess(t *testing.T) {
	disk := vfs.NewCrashableMem()
	acquired(t, opened(t, disk), "gw1")
	acquired(t, opened(t, disk.CrashClone(vfs.CrashCloneCfg{})), "gw2")
}

func TestLocked(t *testing.T) {
	if dir := os.Getenv(lockedDir); dir != "" { // the process that is started below
		_, err := open(vfs.Default, dir, discard())
		wantError(t, err, "another imgate uses the directory "+dir)
		return
	}
	dir := filepath.Join(t.TempDir(), "pebble")
	s, err := open(vfs.Default, dir, discard())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if mode := stat(t, dir).Mode().Perm(); mode != 0o700 {
		t.Errorf("the directory has mode %o", mode)
	}

	_, err = open(vfs.Default, dir, discard())
	wantError(t, err, "another imgate uses the directory "+dir)

	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), lockedDir+"="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("another process: %v\n%s", err, out)
	}
}

// lockedDir tells a process that TestLocked starts which directory is locked.
const lockedDir = "IMGATE_TEST_LOCKED_DIR"

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := open(vfs.Default, filepath.Join(file, "pebble"), discard())
	wantError(t, err, "make the data directory")
}

func TestDamagedStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pebble")
	s, err := open(vfs.Default, dir, discard())
	if err != nil {
		t.Fatal(err)
	}
	acquired(t, s, "gw1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifest: %v", err)
	}
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("what is this?"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = open(vfs.Default, dir, discard())
	wantError(t, err, "the store in "+dir+" is damaged")
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}

// opened opens a store on a file system and closes it at the end of the test.
func opened(t *testing.T, fs vfs.FS) *storage {
	t.Helper()
	s, err := open(fs, "data/pebble", discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func acquired(t *testing.T, s plugin.Storage, node string) plugin.Fence {
	t.Helper()
	f, err := s.Acquire(t.Context(), node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
