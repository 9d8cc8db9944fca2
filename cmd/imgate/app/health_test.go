package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		path   string
		status int
		answer string
		want   outcome
	}{
		{"ready", nil, "/readyz", 200, `{"status":"ready"}`, outcome{exitOK, "ready\n", ""}},
		{"alive", []string{"--live"}, "/healthz", 200, `{"status":"alive"}`, outcome{exitOK, "alive\n", ""}},
		{"standby", nil, "/readyz", 503, `{"status":"not ready","reasons":["standby"],"error":"not ready: standby"}`, outcome{exitError, "", "is not ready: standby\n"}},
		{"of several lines", nil, "/readyz", 503, `{"status":"not ready","error":"not ready: storage-down: no way:\n\tto a\n\tto b"}`, outcome{exitError, "", "is not ready: storage-down: no way: to a to b\n"}},
		{"something else", nil, "/readyz", 200, `<html>`, outcome{exitError, "", "nothing that can be read\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != c.path {
					t.Errorf("asked %s", r.URL)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			})
			t.Setenv("IMGATE_ADMIN_LISTEN", api.address)
			got := imgate(t.Context(), tinyPlugins(), append([]string{"health"}, c.args...)...)
			if got.status != c.want.status || got.out != c.want.out || !strings.HasSuffix(got.err, c.want.err) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
	t.Setenv("IMGATE_ADMIN_LISTEN", "127.0.0.1:1")
	if got := imgate(t.Context(), tinyPlugins(), "health"); got.status != exitError || !strings.Contains(got.err, "no server answers") {
		t.Errorf("without a server: %+v", got)
	}
}
