package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/spool"
)

// against runs a command of ours whose server is the handler.
func against(t *testing.T, handler http.Handler, args ...string) outcome {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Setenv("IMGATE_ADMIN_LISTEN", server.Listener.Addr().String())
	t.Setenv("IMGATE_DATA_DIR", tokenDir(t))
	t.Setenv("IMGATE_NODE", "gw1")
	return imgate(t.Context(), tinyPlugins(), args...)
}

// fakeMessages answers like the admin API of a server with n messages, of which
// the third can't be changed.
type fakeMessages struct {
	n       int
	changed []string
	down    int // after so many changes the server is no longer active; 0: never
	queries []string
}

func (f *fakeMessages) id(i int) message.ID {
	id, err := message.ParseID(fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", i))
	if err != nil {
		panic(err)
	}
	return id
}

func (f *fakeMessages) message(i int) spool.Summary {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return spool.Summary{
		ID: f.id(i), PublicID: "GqUe8Hh1pTPo4bXbmIAvhw", State: spool.StateQuarantined,
		From: message.Address{User: "1001", Host: "sip.example.com"}, To: message.Address{User: "+31612345678"},
		SentAs: message.Address{User: "100", Host: "sms.example.com"}, OriginalTo: message.Address{User: "0612345678", Host: "sip.example.com"},
		Type: "text/plain; charset=utf-8", Size: 1234, Missing: 1, Received: at, Expiry: at.Add(time.Hour), Service: "default",
		Revision: "b1946ac9", Transport: "sip", Peer: "192.0.2.7:5060", Account: "acme", Attempts: 3, Reason: message.Unbuildable,
		Next: at.Add(time.Minute), Labels: map[string]string{"tenant": "acme\x1b[2J"},
		Deliveries: []spool.DeliverySummary{
			{Transport: "sip", Device: "<urn:uuid:1>", State: spool.StateDelivered},
			{Transport: "smsc", State: spool.StateFailed, Reason: message.Declined, PeerIDs: []string{"4711", "4712"}},
			{Transport: "smsc2", State: spool.StateUnknown},
		},
	}
}

func (f *fakeMessages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/messages", f.list)
	mux.HandleFunc("GET /v1/messages/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != f.id(1).String() {
			refuseWith(w, http.StatusNotFound, "no such message")
			return
		}
		json.NewEncoder(w).Encode(f.message(1))
	})
	mux.HandleFunc("POST /v1/messages/{id}/{verb}", f.change)
	mux.ServeHTTP(w, r)
}

func (f *fakeMessages) list(w http.ResponseWriter, r *http.Request) {
	f.queries = append(f.queries, r.URL.RawQuery)
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		refuseWith(w, http.StatusBadRequest, "limit")
		return
	}
	page := struct {
		Messages []spool.Summary `json:"messages"`
		Next     string          `json:"next"`
	}{}
	first := 1
	if after := r.FormValue("after"); after != "" {
		first, _ = strconv.Atoi(strings.TrimLeft(after[len(after)-12:], "0"))
		first++
	}
	for i := first; i <= f.n && len(page.Messages) < limit; i++ {
		page.Messages = append(page.Messages, f.message(i))
	}
	if end := first + len(page.Messages) - 1; end < f.n {
		page.Next = f.id(end).String()
	}
	json.NewEncoder(w).Encode(page)
}

func (f *fakeMessages) change(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.down > 0 && len(f.changed) == f.down:
		refuseWith(w, http.StatusServiceUnavailable, "this node is not the active one")
		return
	case r.PathValue("id") == f.id(3).String():
		refuseWith(w, http.StatusConflict, "it is being sent")
		return
	}
	f.changed = append(f.changed, r.PathValue("verb")+" "+r.PathValue("id"))
	w.WriteHeader(http.StatusNoContent)
}

func refuseWith(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": text})
}

func TestMessageList(t *testing.T) {
	for _, c := range []struct {
		name    string
		n       int
		args    []string
		lines   int
		err     string
		queries int
	}{
		{"none", 0, nil, 1, "", 1},
		{"some", 3, nil, 4, "", 1},
		{"more than shown", 300, nil, 101, "there are more than 100: --limit 0 lists all\n", 1},
		{"all, in pages", 1200, []string{"--limit", "0"}, 1201, "", 3},
		{"as many as there are", 600, []string{"--limit", "600"}, 601, "", 2},
		{"json", 2, []string{"--output", "json"}, 2, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeMessages{n: c.n}
			got := against(t, f, append([]string{"message", "list"}, c.args...)...)
			if got.status != exitOK || strings.Count(got.out, "\n") != c.lines || got.err != c.err || len(f.queries) != c.queries {
				t.Errorf("%d lines, %d queries, status %d, %q", strings.Count(got.out, "\n"), len(f.queries), got.status, got.err)
			}
		})
	}
}

func TestMessageListFilters(t *testing.T) {
	f := &fakeMessages{n: 1}
	got := against(t, f, "message", "list", "--state", "waiting", "--from", "a@b", "--to", "+31", "--service", "s", "--transport", "sip", "--limit", "7")
	if want := "from=a%40b&limit=7&service=s&state=waiting&to=%2B31&transport=sip"; got.status != exitOK || f.queries[0] != want {
		t.Errorf("%v %+v, want %s", f.queries, got, want)
	}
}

func TestMessageOutput(t *testing.T) {
	f := &fakeMessages{n: 1}
	for name, args := range map[string][]string{
		"list.txt":  {"message", "list"},
		"list.json": {"message", "list", "--output", "json"},
		"show.txt":  {"message", "show", f.id(1).String()},
		"show.json": {"message", "show", f.id(1).String(), "--output", "json"},
	} {
		got := against(t, f, args...)
		if got.status != exitOK || got.err != "" {
			t.Errorf("%v: %+v", args, got)
		}
		golden(t, "message-"+name, got.out)
	}
}

// TestMessageShowTellsCopies with the device that one is for, and of what.
func TestMessageShowTellsCopies(t *testing.T) {
	m := spool.Summary{ID: message.ID{1}, Device: "<urn:uuid:1>", CopyOf: message.ID{2}}
	var out strings.Builder
	if err := printMessage(&out, m); err != nil {
		t.Fatal(err)
	}
	if err := printMessages(&out, "")([]spool.Summary{m}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" (copy) ", "copy for", m.Device, "copy of", m.CopyOf.String()} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q isn't in\n%s", want, out.String())
		}
	}
}

// TestMessageListTellsReceipts: no service has decided on them.
func TestMessageListTellsReceipts(t *testing.T) {
	m := (&fakeMessages{}).message(1)
	m.Type, m.Service = message.TypeReceipt, ""
	var out bytes.Buffer
	if err := printMessages(&out, "")([]spool.Summary{m}); err != nil || !strings.Contains(out.String(), " (receipt) ") {
		t.Errorf("%s %v", out.String(), err)
	}
}

func TestMessageChange(t *testing.T) {
	f := &fakeMessages{}
	one, two, three := f.id(1).String(), f.id(2).String(), f.id(3).String()
	for _, c := range []struct {
		name    string
		fake    fakeMessages
		args    []string
		want    outcome // err: what it contains
		changed int
	}{
		{"one", fakeMessages{}, []string{"cancel", one}, outcome{exitOK, one + ": cancelled\n", ""}, 1},
		{"several", fakeMessages{}, []string{"requeue", one, two}, outcome{exitOK, one + ": requeued\n" + two + ": requeued\n", ""}, 2},
		{"one of them fails", fakeMessages{}, []string{"cancel", one, three, two}, outcome{exitError, one + ": cancelled\n" + two + ": cancelled\n",
			three + ": not cancelled: it is being sent\nimgate: 1 of 3 messages could not be cancelled\n"}, 2},
		{"the server steps down", fakeMessages{down: 1}, []string{"cancel", one, two, three}, outcome{exitError, one + ": cancelled\n", "imgate: cancel, after 1 of 3 messages: the server at "}, 1},
		{"all", fakeMessages{n: 2}, []string{"cancel", "--state", "quarantined", "--all", "--yes"}, outcome{exitOK, one + ": cancelled\n" + two + ": cancelled\n", ""}, 2},
		{"all of none", fakeMessages{}, []string{"cancel", "--state", "quarantined", "--all"}, outcome{exitOK, "no such messages\n", ""}, 0},
		{"nobody to ask", fakeMessages{n: 1234}, []string{"requeue", "--state", "quarantined", "--all"}, outcome{exitUsage, "", "nobody is there to be asked whether to requeue 1,234 messages: say --yes"}, 0},
		{"nothing said", fakeMessages{}, []string{"cancel"}, outcome{exitUsage, "", "expected the ID of a message, or --state and --all\nsee imgate message cancel --help\n"}, 0},
		{"both said", fakeMessages{}, []string{"cancel", one, "--all", "--state", "waiting"}, outcome{exitUsage, "", "expected either IDs or --all"}, 0},
		{"all of what", fakeMessages{}, []string{"cancel", "--all", "--yes"}, outcome{exitUsage, "", "--all needs --state"}, 0},
		{"filter and ID", fakeMessages{}, []string{"cancel", one, "--to", "a@b"}, outcome{exitUsage, "", "expected --all with the flags"}, 0},
		{"no such state", fakeMessages{}, []string{"cancel", "--state", "wating", "--all"}, outcome{exitUsage, "", "did you mean waiting?"}, 0},
		{"an empty flag", fakeMessages{n: 2}, []string{"cancel", "--state", "quarantined", "--to", "", "--all", "--yes"}, outcome{exitUsage, "", "--to: expected a value"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := c.fake
			got := against(t, &fake, append([]string{"message"}, c.args...)...)
			if got.status != c.want.status || got.out != c.want.out || !strings.Contains(got.err, c.want.err) || (c.want.err == "") != (got.err == "") {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			if len(fake.changed) != c.changed {
				t.Errorf("%d are changed, want %d", len(fake.changed), c.changed)
			}
		})
	}
}

func TestMessageErrors(t *testing.T) {
	f := &fakeMessages{}
	if got := against(t, f, "message", "show", "x/../y"); got.status != exitError || got.err != "imgate: no such message\n" {
		t.Errorf("%+v", got)
	}
	standby := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuseWith(w, http.StatusServiceUnavailable, "this node is not the active one")
	})
	if got := against(t, standby, "message", "list"); got.status != exitError || !strings.Contains(got.err, " can't do that now: this node is not the active one") {
		t.Errorf("%+v", got)
	}
	if got := imgate(t.Context(), tinyPlugins(), "message", "list", "--limit", "-1"); got.status != exitUsage {
		t.Errorf("%+v", got)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, "y": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		var out bytes.Buffer
		got, err := confirm(strings.NewReader(answer), &out, "cancel 2 messages?")
		if err != nil || got != want || !strings.HasPrefix(out.String(), "cancel 2 messages? [y/N] ") || strings.Contains(out.String(), "nothing was done") == want {
			t.Errorf("%q: %t, %v, %q", answer, got, err, &out)
		}
	}
	broken := errors.New("broken")
	if _, err := confirm(failingReader{broken}, io.Discard, ""); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestReload(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		policy string
		want   outcome
	}{
		{200, `{"changed":["policy","transports.sip"]}`, goodPolicy, outcome{exitOK, "changed: policy, transports.sip\n", ""}},
		{200, `{"changed":[]}`, goodPolicy, outcome{exitOK, "the policies were read again; nothing else has changed\n", ""}},
		{200, `{"changed":[]}`, `{"current":false,"trouble":"revision 1 is in force; the source of this node holds 2"}`, outcome{exitOK,
			"the policies were read again; nothing else has changed\n",
			"remark: policy: revision 1 is in force; the source of this node holds 2\n"}},
		{422, `{"error":"imgate.yaml:13: transports.sip.domain: unknown key"}`, "", outcome{exitError, "",
			"imgate.yaml:13: transports.sip.domain: unknown key\nimgate: the new configuration was not taken; a server that runs goes on with the one that it has\n"}},
		{500, `{"error":"oh"}`, "", outcome{exitError, "", "imgate: oh\n"}},
	} {
		got := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == policyPath && c.policy != "" {
				io.WriteString(w, c.policy)
				return
			}
			if r.Method != http.MethodPost || r.URL.Path != "/v1/reload" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}), "reload")
		if got != c.want {
			t.Errorf("got %+v\nwant %+v", got, c.want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 100000: "100,000"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
