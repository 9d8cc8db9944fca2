package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// handoverAPI is the admin API of node a, which hands over to b.
type handoverAPI struct {
	refusal error
	takes   time.Duration // until the lease is reserved
	comes   time.Duration // after that, until b takes traffic; 0: never
	back    time.Duration // after that, until a takes the lease again; 0: never
	skew    time.Duration // what b's clock is ahead
	deaf    time.Duration // for how long nothing is answered after the hand-over

	asked any // the body of the request
	given time.Time
}

func (h *handoverAPI) Call(ctx context.Context, method, path string, body, answer any) error {
	var told any
	switch method + " " + path {
	case "POST /v1/cluster/handover":
		if h.refusal != nil {
			return h.refusal
		}
		time.Sleep(h.takes)
		h.asked, h.given = body, time.Now()
		told = map[string]any{"to": "b", "took_seconds": h.takes.Seconds()}
	case "GET /v1/cluster":
		if time.Since(h.given) < h.deaf {
			return errors.New("no answer")
		}
		told = h.cluster()
	}
	text, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

func (h *handoverAPI) cluster() cluster {
	since := h.given.Add(h.comes)
	if h.back > 0 && time.Since(h.given) >= h.back {
		return cluster{Node: "a", Active: "a", State: plugin.LeaseHeld}
	}
	if h.comes == 0 || time.Now().Before(since) {
		return cluster{Node: "a", State: plugin.LeaseReserved, ReservedFor: "b", LeftSeconds: 3,
			Nodes: []clusterNode{{Node: "b", Role: "standby", Ready: true}}}
	}
	return cluster{Node: "a", Active: "b", State: plugin.LeaseHeld,
		Nodes: []clusterNode{{Node: "b", Role: "active", Ready: true, Since: since.Add(h.skew)}}}
}

func (h *handoverAPI) Stream(context.Context, string, string, string, io.Reader, io.Writer) error {
	return errors.New("not here")
}

func TestHandOver(t *testing.T) {
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where a bubble's clock begins
	for _, c := range []struct {
		name string
		api  handoverAPI
		to   string
		out  string
		err  string
		took time.Duration
	}{
		{name: "usual", api: handoverAPI{takes: 200 * time.Millisecond, comes: 240 * time.Millisecond},
			out: "b is active since 2000-01-01 00:00:00Z; the gap was about 0.4 s\n", took: 500 * time.Millisecond},
		{name: "to a node", api: handoverAPI{comes: time.Second}, to: "b",
			out: "b is active since 2000-01-01 00:00:01Z; the gap was about 1.0 s\n", took: time.Second},
		{name: "another clock", api: handoverAPI{takes: 200 * time.Millisecond, comes: 250 * time.Millisecond, skew: time.Hour},
			out: "b is active since 2000-01-01 01:00:00Z; the gap was about 0.5 s\n", took: 500 * time.Millisecond},
		{name: "not answered for a while", api: handoverAPI{comes: time.Second, deaf: 3 * time.Second},
			out: "b is active since 2000-01-01 00:00:01Z; the gap was about 1.0 s\n", took: 3 * time.Second},
		{name: "refused", api: handoverAPI{refusal: errors.New("no other node is ready")}, err: "no other node is ready"},
		{name: "taken back", api: handoverAPI{back: 5 * time.Second}, took: 5 * time.Second,
			err: "b hasn't come for the lease, and a has it; see imgate cluster status"},
		{name: "in vain", api: handoverAPI{}, took: 10 * time.Second,
			err: "the lease was handed over to b, which doesn't take traffic after 10s: the lease is reserved for b for 3.0 s; see imgate cluster status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				err := handOver(t.Context(), &c.api, c.to, &out)
				if text := errorText(err); out.String() != c.out || text != c.err {
					t.Errorf("%q, %q", out.String(), text)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v", took)
				}
				if body, named := c.api.asked.(map[string]string); named != (c.to != "") || body["to"] != c.to {
					t.Errorf("asked for %v", c.api.asked)
				}
			})
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Somebody who interrupts it doesn't wait for the other node.
func TestHandOverIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := handOver(ctx, &handoverAPI{}, "", io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestHandoverCommand(t *testing.T) {
	mux := clusterServer(changed(func(c *cluster) { c.Active, c.Nodes[0].Role, c.Nodes[1].Role = "b", "standby", "active" }))
	mux.HandleFunc("POST /v1/cluster/handover", func(w http.ResponseWriter, r *http.Request) {
		var request map[string]string
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request["to"] != "b" {
			refuseWith(w, http.StatusConflict, "no such node")
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"to": "b", "took_seconds": 0.2})
	})
	got := against(t, mux, "cluster", "handover", "--to", "b")
	if got.status != exitOK || !strings.HasPrefix(got.out, "b is active since 2026-01-31 02:12:09Z; the gap was about ") {
		t.Errorf("%+v", got)
	}
	got = against(t, mux, "cluster", "handover", "--to", "x")
	if got.status != exitError || got.err != "imgate: no such node\n" {
		t.Errorf("%+v", got)
	}
	standby := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuseWith(w, http.StatusServiceUnavailable, "standby: node a is active; its admin API is at 127.0.0.1:8061")
	})
	got = against(t, standby, "cluster", "handover")
	if got.status != exitError || !strings.HasSuffix(got.err, " can't do that now: standby: node a is active; its admin API is at 127.0.0.1:8061\n") {
		t.Errorf("%+v", got)
	}
}

func TestHandoverCompletesNodes(t *testing.T) {
	c := changed(func(c *cluster) { c.Nodes[2].SeenSeconds = 60 })
	if got := against(t, clusterServer(c), "__complete", "cluster", "handover", "--to", ""); got.out != "b\n:4\n" {
		t.Errorf("%+v", got)
	}
	if got := against(t, http.NotFoundHandler(), "__complete", "cluster", "handover", "--to", ""); got.out != ":4\n" {
		t.Errorf("%+v", got)
	}
}
