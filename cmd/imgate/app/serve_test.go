package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine"
)

// watched is an output that tells when it was first written to.
type watched struct {
	bytes.Buffer
	begun chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	if w.Len() == 0 {
		defer close(w.begun)
	}
	return w.Buffer.Write(p)
}

// serveOnce runs the server until its banner is written, and returns it.
func serveOnce(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watched{begun: make(chan struct{})}
	var log bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"serve"}, args...), terminal{strings.NewReader(""), out, &log}, tinyPlugins())
	}()
	select {
	case <-out.begun:
		cancel()
		if status := <-done; status != exitOK {
			t.Errorf("status %d\n%s", status, &log)
		}
	case status := <-done:
		t.Fatalf("status %d without a banner\n%s", status, &log)
	}
	return out.String()
}

func TestServe(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("IMGATE_ADMIN_LISTEN", "127.0.0.1:0")
	t.Setenv("IMGATE_NODE", "gw1")
	first := serveOnce(t)
	for _, want := range []string{
		"IMGate runs as node gw1 (built-in defaults)\n", "udp://127.0.0.1:5060  tcp://127.0.0.1:5060\n", "http://127.0.0.1:", "./imgate-data\n",
		" listen 1002@sip.example.com --password ",
		" send 1001@sip.example.com 1002@sip.example.com \"Hello\" --password ",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("the banner lacks %q:\n%s", want, first)
		}
	}
	_, lines, _ := strings.Cut(first, "\n\nTo see it at work")
	if second := serveOnce(t); lines == "" || !strings.HasSuffix(second, lines) {
		t.Errorf("the second start says something else:\n%s\nthan the first:\n%s", second, first)
	}
	info, err := os.Stat("imgate-data/accounts.txt")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat("imgate-data/accounts.txt.new"); err == nil {
		t.Error("the accounts are still pending")
	}
}

func TestServeWithAConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	text := strings.ReplaceAll(issueYAML, "127.0.0.1:8060", "127.0.0.1:0")
	banner := serveOnce(t, "--config", write(t, "imgate.yaml", text))
	if strings.Contains(banner, "--password") {
		t.Errorf("accounts nobody asked for:\n%s", banner)
	}
	if _, err := os.Stat("imgate-data/accounts.txt"); err == nil {
		t.Error("accounts nobody asked for")
	}
}

func TestServeFails(t *testing.T) {
	t.Chdir(t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Setenv("IMGATE_ADMIN_LISTEN", taken.Addr().String())
	got := imgate(t.Context(), tinyPlugins(), "serve")
	if got.status != exitError || !strings.Contains(got.err, "address already in use") || got.out != "" {
		t.Errorf("%+v", got)
	}
}

// An interrupted first start is made good by the next one, with the passwords
// that some accounts already have.
func TestSamplesAfterAnInterruption(t *testing.T) {
	directory := tokenDir(t)
	if s, err := openSamples(directory); s != nil || err != nil {
		t.Errorf("data of somebody's own: %v, %v", s, err)
	}
	directory = filepath.Join(directory, "fresh")
	interrupted, err := openSamples(directory)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, engine.TokenFile), []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := openSamples(directory)
	if err != nil {
		t.Fatal(err)
	}

	created := map[string]string{}
	failing := true
	api := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		var account struct{ AOR, Password, Balance string }
		if err := json.NewDecoder(r.Body).Decode(&account); err != nil || account.Balance != "10.00" || len(account.Password) != 16 {
			t.Errorf("%+v, %v", account, err)
		}
		switch {
		case account.AOR == "1001@sip.example.com":
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"error":"the account exists"}`)
		case failing:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			created[account.AOR] = account.Password
		}
	})
	config := engine.Config{DataDir: directory, AdminListen: api.address}
	if err := next.create(t.Context(), config); err == nil {
		t.Error("a server that refuses passed")
	}
	failing = false
	if err := next.create(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for _, a := range interrupted.accounts[1:] {
		if created[a.aor] != a.password {
			t.Errorf("%s has another password than the first start said", a.aor)
		}
	}
	last, err := openSamples(directory)
	if err != nil || last.pending != "" || len(last.accounts) != 3 || last.accounts[2] != interrupted.accounts[2] {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestSamplesThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "one": "a,b\n", "three columns": "a,b,c\nd,e,f\n"} {
		t.Run(name, func(t *testing.T) {
			path := write(t, samplesName, text)
			if _, err := openSamples(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "remove the file") {
				t.Error(err)
			}
		})
	}
}

func TestProgram(t *testing.T) {
	cached := strings.Repeat("0a", 32) + "-d"
	for path, want := range map[string]string{
		"/tmp/go-build1520081065/b001/exe/imgate": "go run ./cmd/imgate",
		"/var/cache/f0/" + cached + "/imgate":     "go run ./cmd/imgate",
		"/usr/local/bin/imgate":                   os.Args[0],
	} {
		if got := program(func() (string, error) { return path, nil }); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := program(func() (string, error) { return "", errors.New("no") }); got != os.Args[0] {
		t.Error(got)
	}
}
