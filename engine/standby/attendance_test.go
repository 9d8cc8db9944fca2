package standby

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/memory"
)

// attendant is a node that attends.
type attendant struct {
	*Attendance
	line    *line
	log     *buffer
	metrics *plugin.Metrics
	mu      sync.Mutex
	says    Note
	stop    context.CancelFunc
	done    chan struct{}
}

func attends(t *testing.T, disk *memory.Disk, name string, says Note) *attendant {
	ctx, stop := context.WithCancel(t.Context())
	a := &attendant{line: &line{Leases: memory.Open(disk)}, log: &buffer{}, metrics: plugin.NewMetrics(), says: says, stop: stop, done: make(chan struct{})}
	a.Attendance = NewAttendance(a.line, name, slog.New(slog.NewTextHandler(a.log, nil)), a.metrics, func() Note {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.says
	})
	before, err := a.line.Attend(t.Context(), "nobody", "")
	if err != nil {
		t.Fatal(err)
	}
	a.process = fmt.Sprintf("%02d%s", len(before), name) // by chance two of a name could have one key
	go func() {
		defer close(a.done)
		a.Run(ctx)
	}()
	return a
}

func (a *attendant) change(says Note) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says = says
}

func (a *attendant) end() {
	a.stop()
	<-a.done
}

func names(peers []Peer) (list []string) {
	for _, p := range peers {
		list = append(list, p.Node)
	}
	return list
}

var ready = Note{Role: roleStandby, Ready: true}

func TestAttendance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a := attends(t, disk, "a", Note{Role: roleActive, Ready: true, Version: "v1", Admin: "127.0.0.1:1"})
		c := attends(t, disk, "c", ready)
		time.Sleep(2 * attendEvery)
		if heir := a.Heir(time.Now()); heir != "c" {
			t.Errorf("the heir is %q", heir)
		}
		b := attends(t, disk, "b", ready)
		time.Sleep(2 * attendEvery)
		nodes := a.Nodes(time.Now())
		if got := names(nodes); !reflect.DeepEqual(got, []string{"a", "b", "c"}) {
			t.Fatalf("it sees %v", got)
		}
		if !nodes[0].Self || nodes[1].Self || nodes[0].Admin != "127.0.0.1:1" || nodes[1].Seen > 2*attendEvery {
			t.Errorf("%+v", nodes)
		}
		if got := b.Nodes(time.Now())[0]; got.Self || got.Version != "v1" || got.Role != roleActive {
			t.Errorf("others see %+v", got)
		}
		for to, want := range map[string]string{"": "c", "b": "b", "c": "c"} {
			if got, err := a.Receiver(time.Now(), to); got != want || err != nil {
				t.Errorf("handed over to %q and not %q: %v", got, want, err)
			}
		}
		if heir := a.Heir(time.Now()); heir != "c" {
			t.Errorf("the heir is %q and not the one that is ready for longest", heir)
		}
		if got := gauge(a.metrics, "cluster_nodes_ready"); got != 2 {
			t.Errorf("%v nodes are ready", got)
		}

		c.change(Note{Role: roleStandby, Reasons: []string{"storage-down"}})
		b.line.change(func(l *line) { l.cut = errors.New("cut") })
		time.Sleep(2*attendEvery + freshFor)
		now := time.Now()
		if heir := a.Heir(now); heir != "" {
			t.Errorf("the heir is %q", heir)
		}
		for node, want := range map[string]string{
			"a": "node a is the active one already",
			"b": "node b was last seen ",
			"c": "node c isn't ready: storage-down",
			"d": "there is no node d",
		} {
			if _, err := a.Receiver(now, node); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if got, err := b.Receiver(now, "c"); err == nil {
			t.Errorf("a node that hears nothing hands over to %s", got)
		}
		if err := refused(a, ""); !strings.HasPrefix(err, "no other node is ready to take over: node b was last seen ") || !strings.HasSuffix(err, " s ago; node c isn't ready: storage-down") {
			t.Error(err)
		}
		b.line.change(func(l *line) { l.cut = nil })
		b.end()
		c.end()
		time.Sleep(2 * attendEvery)
		if got := names(a.Nodes(time.Now())); !reflect.DeepEqual(got, []string{"a"}) {
			t.Errorf("it still sees %v", got)
		}
		if err := refused(a, ""); err != "no other node is ready to take over: there is none" {
			t.Error(err)
		}
		a.end()
	})
}

// A storage that hangs holds nothing up, and a change is told at once.
func TestAttendanceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		a, b := attends(t, disk, "a", ready), attends(t, disk, "b", ready)
		time.Sleep(2 * attendEvery)
		b.line.change(func(l *line) { l.hangs = true })
		time.Sleep(10 * time.Second)
		if seen := a.Nodes(time.Now())[1].Seen; seen < 9*time.Second {
			t.Errorf("seen %v ago", seen)
		}
		began := time.Now()
		b.end()
		if took := time.Since(began); took > callWait+leaveWait {
			t.Errorf("it ends after %v", took)
		}
		a.change(Note{Role: roleActive, Ready: true})
		a.Hurry()
		a.Hurry()
		synctest.Wait()
		if role := a.Nodes(time.Now())[0].Role; role != roleActive {
			t.Errorf("it still says that it is %s", role)
		}
		a.end()
	})
}

func TestAttendanceOfNamesakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const loud = "another node is named a too: give each a name of its own"
		disk := memory.NewDisk()
		crashed := attends(t, disk, "a", ready)
		time.Sleep(10 * time.Second)
		crashed.line.change(func(l *line) { l.cut = errors.New("cut") })
		crashed.end()

		first, other := attends(t, disk, "a", ready), attends(t, disk, "b", ready)
		time.Sleep(10 * time.Second)
		if strings.Contains(first.log.String(), loud) {
			t.Error("it takes the process before for another node")
		}
		second := attends(t, disk, "a", ready)
		time.Sleep(time.Minute)
		for _, a := range []*attendant{first, second} {
			if n := strings.Count(a.log.String(), loud); n != 1 {
				t.Errorf("it is said %d times", n)
			}
			if nodes := a.Nodes(time.Now()); len(nodes) != 2 || !nodes[0].Self {
				t.Errorf("it sees %+v", nodes)
			}
			if heir := a.Heir(time.Now()); heir != "b" {
				t.Errorf("the heir is %q", heir)
			}
		}
		first.end()
		second.end()
		other.end()
	})
}

func TestNotesAreBounded(t *testing.T) {
	long := strings.Repeat("ä\x00\xff<", plugin.MaxNote)
	n := Note{Node: strings.Repeat("n", 64), Process: "p", Reasons: make([]string, 100), Version: "v"}
	for i := range n.Reasons {
		n.Reasons[i] = long
	}
	for _, n := range []Note{n, {Version: long}, {Started: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}} {
		if text := n.text(); len(text) > plugin.MaxNote || !json.Valid([]byte(text)) || strings.Contains(text, "\x00") {
			t.Errorf("%d octets: %.200q", len(text), text)
		}
	}
	if len(n.Reasons) != 100 {
		t.Error("the caller's list is cut")
	}
}

// FuzzNote reads what another version, or anybody, may have written.
func FuzzNote(f *testing.F) {
	f.Add("a/pr", Note{Node: "a", Process: "pr", Ready: true, Reasons: []string{"x"}}.text())
	f.Add("a/pr", `{"node":"a","process":"pr","reasons":null,"started":"2026-01-31T02:12:09Z","future":1}`)
	f.Add("a/pr", `{"node":"b","process":"p"}`)
	f.Add("/", `{}`)
	f.Fuzz(func(t *testing.T, key, note string) {
		a := &Attendance{process: "pr"}
		p, ok := a.read(plugin.Attendant{Node: key, Note: note})
		if ok && p.key() != key {
			t.Errorf("%q says that it is %q", key, p.key())
		}
		_ = p.obstacle()
		if text := p.text(); len(text) > plugin.MaxNote {
			t.Errorf("written again it has %d octets", len(text))
		}
	})
}

func refused(a *attendant, to string) string {
	_, err := a.Receiver(time.Now(), to)
	if err == nil {
		return ""
	}
	return err.Error()
}

func gauge(m *plugin.Metrics, name string) float64 {
	for _, s := range m.Series() {
		if s.Name == name {
			return s.Value()
		}
	}
	return -1
}
