package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/revisions"
	"github.com/imgate/imgate/engine/spool"
	"github.com/imgate/imgate/engine/standby"
)

// The roles of a node, as others are told.
const (
	roleActive  = "active"
	roleStandby = "standby"
)

const (
	lookWait    = 2 * time.Second  // for what the storage says of the lease
	giveWait    = 20 * time.Second // for a term to end, and the lease to be reserved
	maxHandover = 1 << 10          // octets of a request
)

// join makes this node one of those that share the storage.
func (e *Engine) join() {
	metrics := e.options.Metrics
	e.attendance = standby.NewAttendance(e.storage, e.node, e.log, metrics, e.note)
	e.member = standby.New(e.storage, e.node, e.log, metrics, standby.Roles{
		Active: e.serveTerms, Standby: e.standBy, Heir: e.heir,
	})
}

// leads tells whether this node is the active one.
func (e *Engine) leads() bool { return e.term.Load() != nil && e.member.Holds() }

// heir is who goes on when this node stops; empty: nobody is ready.
func (e *Engine) heir() string { return e.attendance.Heir(time.Now()) }

// note is what this node tells the others of itself.
func (e *Engine) note() standby.Note {
	held := e.book.Held()
	n := standby.Note{
		Role: roleStandby, Version: e.options.Version, Policy: held.Revision, PolicyBroken: held.Broken, Admin: e.admin.Addr(), Started: e.begun, Since: e.begun,
	}
	obstacles := e.unable()
	if t := e.term.Load(); t != nil {
		n.Role, n.Since, obstacles = roleActive, t.tenure.since, e.unready()
	} else if idle := e.noTerm.Load(); idle != nil {
		n.Since = idle.since
	}
	n.Ready, n.Reasons = len(obstacles) == 0, texts(obstacles)
	return n
}

// unable is why this node couldn't take over; nothing if it could.
func (e *Engine) unable() []admin.Obstacle {
	idle := e.noTerm.Load()
	switch {
	case e.draining(), e.ending.Load() != nil: // until its term has ended it can't begin another
		return []admin.Obstacle{{Reason: string(message.Draining)}}
	case idle == nil:
		return []admin.Obstacle{{Reason: "starting"}}
	case e.storageTrouble() != nil:
		return []admin.Obstacle{{Reason: string(message.StorageDown)}}
	case idle.err != nil:
		return []admin.Obstacle{{Reason: "starting", Detail: idle.err}}
	}
	if err := e.book.Unable(time.Now()); err != nil {
		return []admin.Obstacle{{Reason: string(message.PolicyFailed), Detail: err}}
	}
	return e.shut()
}

func texts(obstacles []admin.Obstacle) []string {
	list := make([]string, len(obstacles))
	for i, o := range obstacles {
		list[i] = strings.ReplaceAll(o.String(), "\n", "; ")
	}
	return list
}

// elsewhere is what a standby answers instead of the active node.
func (e *Engine) elsewhere() string {
	text := string(message.Standby) + ": " + e.member.Active()
	holder := e.member.Known().Node
	for _, p := range e.attendance.Nodes(time.Now()) {
		if p.Node == holder && !p.Self && p.Role == roleActive {
			return text + "; its admin API is at " + p.Admin
		}
	}
	return text
}

// refusal is the text of an answer to who needs the active node.
func (e *Engine) refusal(f *message.Failure) string {
	if f.Reason == message.Standby {
		return e.elsewhere()
	}
	return string(f.Reason)
}

// Cluster is what GET /v1/cluster tells.
type Cluster struct {
	Node        string            `json:"node"`         // that was asked
	Active      string            `json:"active"`       // who holds the lease; empty: nobody
	Fence       plugin.Fence      `json:"fence"`        // of the newest lease
	State       plugin.LeaseState `json:"state"`        //
	LeftSeconds float64           `json:"left_seconds"` // negative: for how long the lease has been free
	ReservedFor string            `json:"reserved_for"` // empty: nobody
	Policy      string            `json:"policy"`       // the revision in force; empty: none yet
	Nodes       []ClusterNode     `json:"nodes"`
}

// ClusterNode is a node as the one that was asked knows it.
type ClusterNode struct {
	Node    string   `json:"node"`
	Role    string   `json:"role"`    // active or standby
	Ready   bool     `json:"ready"`   // active: it takes traffic; standby: it could
	Reasons []string `json:"reasons"` // why it isn't ready
	Version string   `json:"version"`
	Policy  string   `json:"policy"` // the newest good revision that its source holds; empty: it doesn't say
	// PolicyBroken: what its source holds now can't be used.
	PolicyBroken bool      `json:"policy_broken"`
	Admin        string    `json:"admin"`
	Started      time.Time `json:"started"`
	Since        time.Time `json:"since"` // when it took up its role
	SeenSeconds  float64   `json:"seen_seconds"`
	Self         bool      `json:"self"`
}

func (e *Engine) serveCluster(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookWait)
	defer cancel()
	lease, err := e.storage.Lease(ctx)
	if err != nil {
		admin.Error(w, http.StatusServiceUnavailable, string(message.StorageDown)+": "+err.Error())
		return
	}
	admin.Reply(w, http.StatusOK, e.cluster(lease, time.Now()))
}

func (e *Engine) cluster(l plugin.Lease, now time.Time) Cluster {
	c := Cluster{
		Node: e.node, Fence: l.Fence, State: l.State, LeftSeconds: l.Left.Seconds(), ReservedFor: l.Next, Policy: e.book.InForce(),
		Nodes: []ClusterNode{},
	}
	if l.State == plugin.LeaseHeld {
		c.Active = l.Node
	}
	for _, p := range e.attendance.Nodes(now) {
		c.Nodes = append(c.Nodes, ClusterNode{
			Node: p.Node, Role: p.Role, Ready: p.Ready, Reasons: append([]string{}, p.Reasons...), Version: p.Version, Policy: p.Policy,
			PolicyBroken: p.PolicyBroken, Admin: p.Admin, Started: p.Started, Since: p.Since, SeenSeconds: p.Seen.Seconds(), Self: p.Self,
		})
	}
	return c
}

// handedOver is the answer to POST /v1/cluster/handover.
type handedOver struct {
	To          string  `json:"to"`
	TookSeconds float64 `json:"took_seconds"` // until the lease was reserved for it
}

func (e *Engine) serveHandover(w http.ResponseWriter, r *http.Request) {
	to, err := readHandover(r)
	if err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, failure := e.active(); failure != nil {
		w.Header().Set("Retry-After", "1")
		admin.Error(w, http.StatusServiceUnavailable, e.refusal(failure))
		return
	}
	began := time.Now()
	e.refresh(r.Context()) // a node that has just come may be asked for
	if to, err = e.attendance.Receiver(time.Now(), to); err != nil {
		admin.Error(w, http.StatusConflict, err.Error())
		return
	}
	// Who asks may leave: the lease is handed over all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), giveWait)
	defer cancel()
	switch err := e.member.HandOver(ctx, to); {
	case errors.Is(err, standby.ErrNotHeld):
		admin.Error(w, http.StatusConflict, err.Error())
	case err != nil:
		admin.Error(w, http.StatusServiceUnavailable, err.Error())
	default:
		admin.Reply(w, http.StatusOK, handedOver{To: to, TookSeconds: time.Since(began).Seconds()})
	}
}

// refresh looks who is there, for as long as one may wait for that.
func (e *Engine) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	e.attendance.Refresh(ctx)
}

// readHandover reads to whom; empty: to whoever is ready.
func readHandover(r *http.Request) (to string, err error) {
	if _, err := query(r); err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxHandover+1))
	if err != nil || len(body) > maxHandover {
		return "", fmt.Errorf("expected a body of at most %d octets", maxHandover)
	}
	if len(body) == 0 {
		return "", nil
	}
	var request struct {
		To string `json:"to"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return "", errors.New(`expected a body such as {"to":"node"}`)
	}
	return request.To, nil
}

// sheets are how all tables read that this configuration writes.
func sheets(c Config) []plugin.Sheet {
	all := append(spool.Sheets(), revisions.Sheets()...)
	for _, i := range []Instance{c.Accounts, c.Charging} {
		for _, s := range i.Plugin.Sheets {
			s.Table = i.Plugin.Name + "/" + s.Table
			if !slices.ContainsFunc(all, func(known plugin.Sheet) bool { return known.Table == s.Table }) {
				all = append(all, s)
			}
		}
	}
	return all
}
