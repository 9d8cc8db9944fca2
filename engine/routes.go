package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/admin"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/spool"
)

// routes are the engine's own part of the admin API.
func (e *Engine) routes() {
	e.own.Handle("GET /status", e.serveStatus)
	e.own.Handle("POST /reload", e.serveReload)
	e.own.Handle("GET /policy", e.servePolicy)
	e.own.Handle("GET /cluster", e.serveCluster)
	e.own.Handle("POST /cluster/handover", e.serveHandover)
	e.own.Handle("GET /messages", e.whileActive(serveMessages))
	e.own.Handle("GET /messages/{id}", e.onMessage(func(ctx context.Context, t *term, id message.ID) (any, error) {
		return t.pipeline.Show(ctx, id)
	}))
	e.own.Handle("POST /messages/{id}/cancel", e.onMessage(func(ctx context.Context, t *term, id message.ID) (any, error) {
		return nil, t.pipeline.Cancel(ctx, id)
	}))
	e.own.Handle("POST /messages/{id}/requeue", e.onMessage(func(ctx context.Context, t *term, id message.ID) (any, error) {
		return nil, t.pipeline.Requeue(ctx, id)
	}))
}

// Routes returns the patterns of the admin API that are served just now, such
// as "GET /v1/status", sorted. It is called while Run runs.
func (e *Engine) Routes() []string { return e.admin.Routes() }

// unready is why this node doesn't take traffic; nothing if it does.
func (e *Engine) unready() []admin.Obstacle {
	if e.draining() {
		return []admin.Obstacle{{Reason: string(message.Draining)}}
	}
	return append(e.termless(), e.shut()...)
}

// shut are the doors that aren't open.
func (e *Engine) shut() (obstacles []admin.Obstacle) {
	for _, s := range *e.slots.Load() {
		if d := s.current.Load(); d == nil || !d.isReady() {
			obstacles = append(obstacles, admin.Obstacle{Reason: "transports." + s.name + " isn't open"})
		}
	}
	return obstacles
}

// termless is why there is no term, or what is wrong with the one that there is.
func (e *Engine) termless() []admin.Obstacle {
	t, trouble, why := e.term.Load(), e.storageTrouble(), e.noTerm.Load()
	switch {
	case trouble != nil:
		return []admin.Obstacle{{Reason: string(message.StorageDown), Detail: trouble}}
	case t != nil && e.member.Holds():
		return nil
	case why != nil && why.err != nil: // the configuration's fault
		return []admin.Obstacle{{Reason: "starting", Detail: why.err}}
	case e.beginning.Load() || !e.isUp():
		return []admin.Obstacle{{Reason: "starting"}}
	}
	return []admin.Obstacle{{Reason: string(message.Standby), Detail: errors.New(e.member.Active())}}
}

// Status is what GET /v1/status tells.
type Status struct {
	Node    string   `json:"node"`
	Version string   `json:"version"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why it isn't ready
	// Counts is what has happened since the process was started, and what is in
	// memory now: that only on the active node.
	Counts map[string]int64 `json:"counts"`
}

func (e *Engine) serveStatus(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	obstacles := e.unready()
	s := Status{
		Node: e.node, Version: e.options.Version, Ready: len(obstacles) == 0,
		Reasons: []string{}, Counts: e.counting.messages.Counts(),
	}
	for _, o := range obstacles {
		s.Reasons = append(s.Reasons, o.Reason)
	}
	if t, failure := e.active(); failure == nil {
		s.Counts = t.pipeline.Snapshot()
	}
	admin.Reply(w, http.StatusOK, s)
}

func (e *Engine) serveReload(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	changed, err := e.Refresh(r.Context())
	if err == nil {
		admin.Reply(w, http.StatusOK, map[string][]string{"changed": append([]string{}, changed...)})
		return
	}
	status := http.StatusUnprocessableEntity
	if _, ok := errors.AsType[*message.Failure](err); ok || r.Context().Err() != nil {
		status = http.StatusServiceUnavailable
	}
	admin.Error(w, status, err.Error())
}

func serveMessages(w http.ResponseWriter, r *http.Request, t *term) {
	filter, err := readFilter(r)
	if err != nil {
		admin.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	page, err := t.pipeline.List(r.Context(), filter)
	if err != nil {
		refuse(w, err)
		return
	}
	if page.Messages == nil {
		page.Messages = []pipeline.View{}
	}
	admin.Reply(w, http.StatusOK, page)
}

// onMessage serves a request about one message. What do returns is the answer;
// nil: there is none.
func (e *Engine) onMessage(do func(context.Context, *term, message.ID) (any, error)) http.HandlerFunc {
	return e.whileActive(func(w http.ResponseWriter, r *http.Request, t *term) {
		_, err := query(r)
		if err != nil {
			admin.Error(w, http.StatusBadRequest, err.Error())
			return
		}
		id, err := message.ParseID(r.PathValue("id"))
		if err != nil {
			admin.Error(w, http.StatusBadRequest, err.Error())
			return
		}
		switch answer, err := do(r.Context(), t, id); {
		case err != nil:
			refuse(w, err)
		case answer == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			admin.Reply(w, http.StatusOK, answer)
		}
	})
}

// refuse answers with an error of the pipeline.
func refuse(w http.ResponseWriter, err error) {
	failure, known := errors.AsType[*message.Failure](err)
	switch {
	case known && failure.Reason == message.UnknownRecipient:
		admin.Error(w, http.StatusNotFound, failure.Err.Error())
	case errors.Is(err, pipeline.ErrConflict):
		admin.Error(w, http.StatusConflict, err.Error())
	default:
		admin.Error(w, http.StatusServiceUnavailable, err.Error())
	}
}

func (e *Engine) whileActive(serve func(http.ResponseWriter, *http.Request, *term)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, failure := e.active()
		if failure != nil {
			w.Header().Set("Retry-After", strconv.Itoa(int(failure.RetryAfter.Seconds())))
			admin.Error(w, http.StatusServiceUnavailable, e.refusal(failure))
			return
		}
		serve(w, r, t)
	}
}

// query reads the parameters of a request: each of those that are known, once
// at most.
func query(r *http.Request, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query can't be read: %w", err)
	}
	parameters := map[string]string{}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown parameter %q: expected %s", name, oneOf(known))
		}
		if len(list) > 1 || list[0] == "" {
			return nil, fmt.Errorf("parameter %q: expected one value", name)
		}
		parameters[name] = list[0]
	}
	return parameters, nil
}

func oneOf(known []string) string {
	if len(known) == 0 {
		return "none"
	}
	return "one of " + strings.Join(known, ", ")
}

// readFilter reads which messages to list.
func readFilter(r *http.Request) (f pipeline.Filter, err error) {
	parameters, err := query(r, "state", "from", "to", "service", "transport", "after", "limit")
	if err != nil {
		return f, err
	}
	f.State, f.Service, f.Transport = spool.StateName(parameters["state"]), parameters["service"], parameters["transport"]
	if f.State != "" && !slices.Contains(spool.MessageStates, f.State) {
		return f, fmt.Errorf("parameter \"state\": expected one of %v", spool.MessageStates)
	}
	if err := f.From.UnmarshalText([]byte(parameters["from"])); err != nil {
		return f, fmt.Errorf("parameter \"from\": %w", err)
	}
	if err := f.To.UnmarshalText([]byte(parameters["to"])); err != nil {
		return f, fmt.Errorf("parameter \"to\": %w", err)
	}
	if after, given := parameters["after"]; given {
		if f.After, err = message.ParseID(after); err != nil {
			return f, fmt.Errorf("parameter \"after\": %w", err)
		}
	}
	if limit, given := parameters["limit"]; given {
		f.Limit, err = strconv.Atoi(limit)
		if err != nil || f.Limit < 1 || f.Limit > pipeline.MaxLimit {
			return f, fmt.Errorf("parameter \"limit\": expected a number from 1 to %d", pipeline.MaxLimit)
		}
	}
	return f, nil
}
