package standby

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	attendEvery = time.Second
	// freshFor is how long ago a node may have spoken that is to take over.
	freshFor = 3 * time.Second
	// leaveWait is how long a node that stops may take to say so.
	leaveWait = 500 * time.Millisecond

	maxReasons = 8
	maxReason  = 200 // octets of each
)

// Note is what a node says of itself.
type Note struct {
	Node    string   `json:"node"`
	Process string   `json:"process"` // random: it tells apart those that bear one name
	Role    string   `json:"role"`    // active or standby
	Ready   bool     `json:"ready"`   // active: it takes traffic; standby: it could
	Reasons []string `json:"reasons"` // why it isn't ready
	Version string   `json:"version"`
	Policy  string   `json:"policy,omitempty"` // the newest good revision that its source holds
	// PolicyBroken: what its source holds now can't be used.
	PolicyBroken bool      `json:"policy_broken,omitempty"`
	Admin        string    `json:"admin"`   // the address of its admin API
	Started      time.Time `json:"started"` // when the process began
	Since        time.Time `json:"since"`   // when it took up its role
	// ReadySince is since when it has been ready in this role.
	ReadySince time.Time `json:"ready_since,omitzero"`
	// Left: it has stopped in order, and is no node any more.
	Left bool `json:"left,omitempty"`
}

// Peer is a node as this one knows it.
type Peer struct {
	Note
	Seen time.Duration // since it has spoken
	Self bool
}

// Attendance is who is there. Its methods may be called from any goroutine.
type Attendance struct {
	leases  plugin.Leases
	node    string
	process string
	log     *slog.Logger
	note    func() Note
	failed  *plugin.Counter
	hurry   chan struct{}
	asked   chan chan struct{} // for somebody who waits for the next roll
	roll    atomic.Pointer[roll]

	// Run's own.
	began  time.Time // when it first spoke
	last   Note
	warned bool // of another node of this name
}

// roll is what all have said, as of a moment.
type roll struct {
	at    time.Time
	peers []Peer // Seen is as of then
}

// NewAttendance returns an attendance that Run keeps. note says how this node
// is, but for Node, Process and ReadySince; it is called about once a second and
// must not block.
func NewAttendance(leases plugin.Leases, node string, log *slog.Logger, metrics *plugin.Metrics, note func() Note) *Attendance {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	a := &Attendance{
		leases: leases, node: node, process: hex.EncodeToString(id[:]), log: log.With("node", node), note: note,
		failed: metrics.Counter("lease_errors_total", "Calls of the storage about the lease that failed."),
		hurry:  make(chan struct{}, 1), asked: make(chan chan struct{}),
	}
	a.roll.Store(&roll{})
	metrics.Gauge("cluster_nodes_ready", "Other nodes that are ready: to take over, or at work.", func() float64 {
		return float64(len(a.ready(time.Now())))
	})
	return a
}

// Run says once a second that this node is there, and at the end that it has
// left. It returns when ctx has ended.
func (a *Attendance) Run(ctx context.Context) {
	a.began = time.Now()
	var told chan struct{} // of whoever waits
	for ctx.Err() == nil {
		a.attend(ctx, a.current(time.Now()))
		if told != nil {
			close(told)
			told = nil
		}
		select {
		case <-time.After(attendEvery):
		case <-a.hurry:
		case told = <-a.asked:
		case <-ctx.Done():
		}
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancel()
	note := a.current(time.Now())
	note.Left = true
	a.attend(leaving, note)
}

// Hurry lets others know at once that something has changed.
func (a *Attendance) Hurry() {
	select {
	case a.hurry <- struct{}{}:
	default:
	}
}

// Refresh returns when it is known anew who is there, which takes one call of
// the storage, or when that has failed, or ctx has ended.
func (a *Attendance) Refresh(ctx context.Context) {
	told := make(chan struct{})
	select {
	case a.asked <- told:
	case <-ctx.Done():
		return
	}
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// current is what this node says of itself now.
func (a *Attendance) current(now time.Time) Note {
	n := a.note()
	n.Node, n.Process = a.node, a.process
	switch {
	case !n.Ready:
	case a.last.Ready && a.last.Role == n.Role:
		n.ReadySince = a.last.ReadySince
	default:
		n.ReadySince = now
	}
	a.last = n
	return n
}

// attend says something and notes what all have said. What fails is for those
// to say who need the storage for more.
func (a *Attendance) attend(ctx context.Context, n Note) {
	said, err := call(ctx, func(ctx context.Context) ([]plugin.Attendant, error) {
		return a.leases.Attend(ctx, n.key(), n.text())
	})
	if err != nil {
		a.failed.Inc()
		return
	}
	now := time.Now()
	all := make([]Peer, 0, len(said))
	for _, one := range said {
		if p, ok := a.read(one); ok {
			all = append(all, p)
		}
	}
	a.warn(now, all)
	a.roll.Store(&roll{at: now, peers: newest(all)})
}

// key is what a note is kept under: processes of one name have several, so that
// they see each other, and not one each, so that those that crash again and again
// leave few behind.
func (n Note) key() string { return n.Node + "/" + n.Process[:min(len(n.Process), 2)] }

// text is a note as others read it, within plugin.MaxNote.
func (n Note) text() string {
	n.Reasons = slices.Clone(n.Reasons[:min(len(n.Reasons), maxReasons)])
	for i, r := range n.Reasons {
		n.Reasons[i] = r[:min(len(r), maxReason)]
	}
	text, err := json.Marshal(n)
	if err != nil || len(text) > plugin.MaxNote {
		return "{}" // a time beyond the year 9999
	}
	return string(text)
}

// read takes a note that was written by this version or another.
func (a *Attendance) read(said plugin.Attendant) (Peer, bool) {
	p := Peer{Seen: said.Ago}
	if len(said.Note) > plugin.MaxNote || json.Unmarshal([]byte(said.Note), &p.Note) != nil || p.key() != said.Node {
		return p, false
	}
	p.Self = p.Process == a.process
	return p, p.Self || !p.Left && p.Seen <= plugin.AttendanceKept
}

// newest leaves one of each name: this one, or the one that spoke last.
func newest(all []Peer) []Peer {
	slices.SortFunc(all, func(x, y Peer) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), rank(y)-rank(x), cmp.Compare(x.Seen, y.Seen))
	})
	return slices.CompactFunc(all, func(x, y Peer) bool { return x.Node == y.Node })
}

func rank(p Peer) int {
	if p.Self {
		return 1
	}
	return 0
}

// warn says once that another process speaks under this node's name.
func (a *Attendance) warn(now time.Time, all []Peer) {
	twin := func(p Peer) bool {
		return p.Node == a.node && !p.Self && now.Add(-p.Seen).After(a.began.Add(attendEvery/2))
	}
	if a.warned || !slices.ContainsFunc(all, twin) {
		return
	}
	a.warned = true
	a.log.Error(fmt.Sprintf("another node is named %s too: give each a name of its own", a.node))
}

// Nodes are those that have attended within plugin.AttendanceKept and not left,
// by name, this one included.
func (a *Attendance) Nodes(now time.Time) []Peer {
	r := a.roll.Load()
	nodes := slices.Clone(r.peers)
	for i := range nodes {
		nodes[i].Seen += now.Sub(r.at)
	}
	return nodes
}

// ready are the other nodes that are ready and have spoken lately.
func (a *Attendance) ready(now time.Time) []Peer {
	return slices.DeleteFunc(a.Nodes(now), func(p Peer) bool { return p.Node == a.node || p.obstacle() != "" })
}

// obstacle is why a node can't be handed anything; empty: it can.
func (p Peer) obstacle() string {
	switch {
	case p.Seen > freshFor:
		return fmt.Sprintf("node %s was last seen %s ago", p.Node, shown(p.Seen))
	case !p.Ready:
		return fmt.Sprintf("node %s isn't ready: %s", p.Node, strings.Join(p.Reasons, ", "))
	}
	return ""
}

// Heir is the node that has been ready to take over for longest; empty: none is.
func (a *Attendance) Heir(now time.Time) string {
	ready := a.ready(now)
	if len(ready) == 0 {
		return ""
	}
	return slices.MinFunc(ready, func(x, y Peer) int { return x.ReadySince.Compare(y.ReadySince) }).Node
}

// Receiver is to whom this node can hand over: to, or the heir if that is empty.
// An error says why there is none.
func (a *Attendance) Receiver(now time.Time, to string) (string, error) {
	if to == a.node {
		return "", fmt.Errorf("node %s is the active one already", to)
	}
	if heir := a.Heir(now); to == "" && heir != "" {
		return heir, nil
	}
	var obstacles []string
	for _, p := range a.Nodes(now) {
		why := p.obstacle()
		switch {
		case p.Node == to && why == "":
			return to, nil
		case p.Node == to:
			return "", errors.New(why)
		case p.Node != a.node:
			obstacles = append(obstacles, why)
		}
	}
	switch {
	case to != "":
		return "", fmt.Errorf("there is no node %s", to)
	case len(obstacles) == 0:
		return "", errors.New("no other node is ready to take over: there is none")
	}
	return "", errors.New("no other node is ready to take over: " + strings.Join(obstacles, "; "))
}
