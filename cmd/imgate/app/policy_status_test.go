package app

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	goodPolicy = `{"revision":"8f14e45fceea167a5a36dedd4bea2543","services":["onnet","sms"],"since":"2026-01-31T02:12:09Z","node":"a",
		"source":"dir ./policies","held":"8f14e45fceea167a5a36dedd4bea2543","current":true,"trouble":"","standing_in":false,
		"tests":12,"coverage":93.46,"warnings":["onnet.rego:7: no transport is called sipp"],
		"revisions":[{"revision":"8f14e45fceea167a5a36dedd4bea2543","since":"2026-01-31T02:12:09Z","node":"a"},
			{"revision":"c9f0f895fb98ab9159f51fd0297e236d","since":"2026-01-30T02:12:09Z","until":"2026-01-31T02:12:09Z","node":"b"}]}`
	brokenPolicy = `{"revision":"8f14e45fceea167a5a36dedd4bea2543","services":["onnet"],"since":"2026-01-31T02:12:09Z","node":"a",
		"source":"dir ./policies","held":"","current":false,"trouble":"a.rego:1: rego_parse_error\na.rego:2: \u001b[2Jmore","trouble_since":"2026-01-31T03:00:00Z",
		"trying_since":"2026-01-31T03:02:00Z","standing_in":true,"expires":"2999-03-02T02:12:09Z","tests":12,"coverage":93.46,"warnings":[],"revisions":[]}`
	emptyPolicy = `{"revision":"","services":[],"node":"","source":"rego","held":"1","current":true,"trouble":"","standing_in":false,"tests":0,"coverage":0,"warnings":[],"revisions":[]}`
)

func policyServer(answer string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+policyPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
	return mux
}

func TestPolicyStatus(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
	}{"good": {goodPolicy, exitOK}, "broken": {brokenPolicy, exitError}, "empty": {emptyPolicy, exitOK}} {
		t.Run(name, func(t *testing.T) {
			got := against(t, policyServer(c.answer), "policy", "status")
			if got.status != c.status || (got.err == "") != (c.status == exitOK) {
				t.Errorf("%+v", got)
			}
			golden(t, "policy-"+name+".txt", got.out)
			got = against(t, policyServer(c.answer), "policy", "status", "--output", "json")
			var printed, answered policyStatus
			if err := json.Unmarshal([]byte(got.out), &printed); err != nil || got.status != c.status {
				t.Errorf("%v, %+v", err, got)
			}
			if err := json.Unmarshal([]byte(c.answer), &answered); err != nil || printed.Trouble != answered.Trouble || printed.Revision != answered.Revision {
				t.Errorf("%v, %+v, want %+v", err, printed, answered)
			}
		})
	}
	if got := against(t, http.NotFoundHandler(), "policy", "status"); got.status != exitError || !strings.Contains(got.err, "answered 404") {
		t.Errorf("%+v", got)
	}
	if got := imgate(t.Context(), tinyPlugins(), "policy", "status", "now"); got.status != exitUsage {
		t.Errorf("%+v", got)
	}
}

func TestPolicyState(t *testing.T) {
	now := time.Date(2026, 1, 31, 3, 30, 0, 0, time.UTC)
	const notInForce = "what the source holds is not in force, since 2026-01-31 03:00:00Z"
	since, broken := now.Add(-30*time.Minute), policyStatus{TroubleSince: now.Add(-30 * time.Minute)}
	for want, s := range map[string]policyStatus{
		"what the source holds is in force":                                         {Current: true},
		"what the source held is in force, with trouble since 2026-01-31 03:00:00Z": {Current: true, Trouble: "x", TroubleSince: since},
		notInForce: broken,
		notInForce + "; a stored revision stands in":                                  {TroubleSince: since, StandingIn: true},
		notInForce + "; by max_age a start succeeds until 2026-01-31 04:00:00Z":       {TroubleSince: since, Expires: now.Add(30 * time.Minute)},
		notInForce + "; by max_age no start has succeeded since 2026-01-31 03:00:00Z": {TroubleSince: since, Expires: since},
	} {
		if got := s.state(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRemarks(t *testing.T) {
	server := statusServer(http.StatusOK, `{"status":"ready","remarks":["policy: a.rego:1: no\na.rego:2: no"]}`)
	got := against(t, server, "health")
	if got != (outcome{exitOK, "ready\n", "remark: policy: a.rego:1: no a.rego:2: no\n"}) {
		t.Errorf("%+v", got)
	}
	got = against(t, server, "status")
	if got.status != exitOK || !strings.Contains(got.out, "\nremark             policy: a.rego:1: no a.rego:2: no\n") {
		t.Errorf("%+v", got)
	}
	got = against(t, server, "status", "--output", "json")
	if !strings.Contains(got.out, `"ready":true,"remarks":["policy: a.rego:1: no\na.rego:2: no"]`) {
		t.Errorf("%+v", got)
	}
	got = against(t, statusServer(http.StatusServiceUnavailable, `{"status":"not ready","reasons":["starting"],"error":"not ready: starting","remarks":["policy: no"]}`), "health")
	if got.status != exitError || !strings.HasPrefix(got.err, "remark: policy: no\n") {
		t.Errorf("%+v", got)
	}
}

// warning is a source whose policies have something to be careful about.
type warning struct{ plugin.PolicySource }

func (w warning) Compile(ctx context.Context, b plugin.Bundle) (plugin.Policy, plugin.PolicyReport, error) {
	policy, report, err := w.PolicySource.Compile(ctx, b)
	report.Warnings = []string{"a.rego:7: careful"}
	return policy, report, err
}

func TestCheckWarns(t *testing.T) {
	file := write(t, "imgate.yaml", strings.ReplaceAll(issueYAML, "./policies", "careless"))
	if got := imgate(t.Context(), tinyPlugins(), "check", "--config", file); got != (outcome{exitOK, file + ": ok\n", "warning: a.rego:7: careful\n"}) {
		t.Errorf("%+v", got)
	}
}

func TestZone(t *testing.T) {
	for text, want := range map[string]string{"": "UTC", "zone: Europe/Vienna\n": "Europe/Vienna", "zone: UTC\n": "UTC"} {
		if zone := parse(t, issueYAML+text).Zone; zone == nil || zone.String() != want {
			t.Errorf("%q: %v, want %s", text, zone, want)
		}
	}
	for _, text := range []string{"zone: Mars/Olympus\n", "zone: Local\n", "zone: \"\"\n", "zone: ../etc\n"} {
		_, err := parseConfig("f", []byte("transports: {loop: {}}\n"+text), tinyPlugins())
		if err == nil || err.Error() != `f:2: zone: expected the name of a time zone, such as "Europe/Vienna"` {
			t.Errorf("%q: %v", text, err)
		}
	}
}
