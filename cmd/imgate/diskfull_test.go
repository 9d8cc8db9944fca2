//go:build process

package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// diskSize is that of the file system that is filled: room for the 64 MiB that
// the storage wants free, and for what it writes.
const diskSize = "192m"

// refusedWithin is how soon a full disk is noticed.
const refusedWithin = 2 * time.Second

// TestDiskFull fills the disk under a server that takes messages: it refuses
// new ones for the time being, takes them again by itself when there is room,
// and has lost nothing that it said it has.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system of its own needs root")
	}
	s := newServer(t, "")
	disk := mountDisk(t, s)
	s.start()
	s.importAccounts([]string{"alice", "bob"})

	taken := &accepted{}
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	for n := range 4 {
		sending.Go(func() { taken.sendUntil(ctx, t, s, n) })
	}
	taken.await(t, "messages are taken", func() bool { return taken.count() >= 200 })
	filler := fill(t, disk)
	full := time.Now()
	taken.await(t, "a message is refused", func() bool { return taken.refusals.Load() > 0 })
	if took := time.Since(full); took > 5*refusedWithin {
		t.Errorf("the first message is refused after %v", took)
	} else {
		t.Logf("the first message is refused after %v", took)
	}
	taken.await(t, "messages are refused while the disk is full", func() bool { return taken.refusals.Load() >= 20 })
	said := readiness(t, s)
	t.Logf("/readyz says %s", said)
	if !strings.Contains(said, `"reasons":["storage-down"]`) || !strings.Contains(said, "the disk ") {
		t.Error("it doesn't say why")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	had := taken.count()
	taken.await(t, "messages are taken again", func() bool { return taken.count() >= had+200 })
	stop()
	sending.Wait()

	arrived := collect(t, s, taken.count())
	for body := range taken.bodies {
		if arrived[body] == 0 {
			t.Errorf("%q was answered 202 and is lost", body)
		}
	}
	t.Logf("%d messages taken, %d refused, %d answers that can't be known", taken.count(), taken.refusals.Load(), taken.unknown.Load())
}

// mountDisk puts the data directory on a small file system of its own.
func mountDisk(t *testing.T, s *server) string {
	t.Helper()
	disk := filepath.Join(filepath.Dir(s.config), "data")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+diskSize); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		s.kill()
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return disk
}

// fill writes until nothing more fits.
func fill(t *testing.T, disk string) (name string) {
	t.Helper()
	name = filepath.Join(disk, "filler")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 64<<10)
	for {
		if _, err := file.Write(block); err != nil {
			return name
		}
	}
}

// accepted is what the server has said that it has.
type accepted struct {
	refusals, unknown atomic.Int64

	mu     sync.Mutex
	bodies map[string]bool
}

func (a *accepted) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.bodies)
}

func (a *accepted) add(body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bodies == nil {
		a.bodies = map[string]bool{}
	}
	a.bodies[body] = true
}

// sendUntil sends messages to somebody who is offline until ctx ends.
func (a *accepted) sendUntil(ctx context.Context, t *testing.T, s *server, sender int) {
	agent := dial(t, s, "alice", nil)
	defer agent.Close()
	to := message.Address{User: "bob", Host: "sip.example.com"}
	for n := 0; ctx.Err() == nil; n++ {
		body := fmt.Sprintf("%d/%d", sender, n)
		asking, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		result, err := agent.Message(asking, to, "text/plain", []byte(body), ua.Options{})
		cancel()
		switch {
		case err != nil:
			a.unknown.Add(1)
		case result.Code == 202:
			a.add(body)
		case result.Code == 503 || result.Code == 500 || result.Code == 480:
			a.refusals.Add(1)
			time.Sleep(20 * time.Millisecond) // as whoever is told to come back
		default:
			t.Errorf("%s is answered %d %s", body, result.Code, result.Reason)
			return
		}
	}
}

func (a *accepted) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s (%d taken, %d refused, %d unknown)", what, a.count(), a.refusals.Load(), a.unknown.Load())
		}
		time.Sleep(10 * time.Millisecond) // polling another process
	}
}

// collect registers bob and returns what arrives.
func collect(t *testing.T, s *server, atLeast int) map[string]int {
	t.Helper()
	box := newMailbox()
	bob := dial(t, s, "bob", box.take)
	defer bob.Close()
	registerAll(t, []*ua.Agent{bob}, false)
	deadline := time.Now().Add(time.Minute)
	for box.distinct() < atLeast && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond) // polling another process
	}
	box.mu.Lock()
	defer box.mu.Unlock()
	return box.counts
}

// readiness returns what /readyz says.
func readiness(t *testing.T, s *server) string {
	t.Helper()
	answer, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
