package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

const secret = "a secret of the operator's"

// pushServer keeps what it is asked.
type pushServer struct {
	*httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc // nil: 204
	bodies []request
	heads  []http.Header
	raw    [][]byte

	conns atomic.Int64
}

func newPushServer(t plugintest.T, start func(*httptest.Server)) *pushServer {
	s := &pushServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	start(s.Server)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *pushServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if answer != nil {
		answer(w, r)
		return
	}
	var q request
	if err != nil || json.Unmarshal(body, &q) != nil || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies, s.heads, s.raw = append(s.bodies, q), append(s.heads, r.Header.Clone()), append(s.raw, body)
	w.WriteHeader(http.StatusNoContent)
}

func (s *pushServer) answers(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

func (s *pushServer) woken() (all []plugin.Sleeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.bodies {
		user, host, _ := strings.Cut(q.AOR, "@")
		all = append(all, plugin.Sleeper{
			Push: plugin.Push{Provider: q.Provider, Param: q.Param, ID: q.PRID}, Account: q.Account,
			AOR: message.Address{User: user, Host: host}, Device: q.Device,
		})
	}
	return all
}

func openHook(t plugintest.T, url string, change func(*Config)) plugin.Pusher {
	t.Helper()
	config := Plugin.NewConfig().(*Config)
	config.URL = url
	if change != nil {
		change(config)
	}
	if err := config.Validate(); err != nil {
		t.Fatalf("configuration: %v", err)
	}
	p, err := plugin.Open[plugin.Pusher](t.Context(), Plugin, plugin.Env{Node: "gw1", Log: slog.New(slog.DiscardHandler)}, config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return p
}

func TestContract(t *testing.T) {
	plugintest.Push(t, func(t plugintest.T) plugintest.PushHarness {
		s := newPushServer(t, (*httptest.Server).Start)
		over := make(chan struct{})
		t.Cleanup(func() { close(over) }) // before the server closes, which waits for its handlers
		return plugintest.PushHarness{
			Open:  func(t plugintest.T) plugin.Pusher { return openHook(t, s.URL+"/wake?key=k", nil) },
			Woken: func(plugintest.T) []plugin.Sleeper { return s.woken() },
			Answer: func(_ plugintest.T, a plugintest.PushAnswer) {
				s.answers(map[plugintest.PushAnswer]http.HandlerFunc{
					plugintest.PushRefuses: echo(http.StatusGone),
					plugintest.PushFails:   echo(http.StatusBadGateway),
					plugintest.PushSilent:  func(http.ResponseWriter, *http.Request) { <-over },
				}[a])
			},
		}
	})
}

// echo answers with what was asked, which no error is to repeat.
func echo(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "prid-0 "+r.URL.String())
	}
}

var phone = plugin.Sleeper{
	Push:    plugin.Push{Provider: "apns", Param: "TEAM.com.example.app", ID: "the token"},
	Account: "1001", AOR: message.Address{User: "1001", Host: "sip.example.com"}, Device: "<urn:uuid:1>",
}

func TestRequest(t *testing.T) {
	s := newPushServer(t, (*httptest.Server).Start)
	p := openHook(t, s.URL, func(c *Config) {
		c.Secret = secret
		c.Header = map[string]string{"Authorization": "Bearer abc", "user-agent": "other"}
	})
	for range 3 {
		if err := p.Wake(t.Context(), phone); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("three requests took %d connections", n)
	}
	head, body, raw := s.heads[0], s.bodies[0], s.raw[0]
	want := request{"1001", "1001@sip.example.com", "<urn:uuid:1>", "apns", "TEAM.com.example.app", "the token", "gw1", body.Time}
	if body != want || time.Since(body.Time) > time.Minute {
		t.Errorf("got %+v", body)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Authorization": "Bearer abc", "User-Agent": "other"} {
		if got := head.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(head.Get(SignatureHeader), "t="), ",")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	at := time.Unix(seconds, 0)
	if err != nil || time.Since(at) > time.Minute || head.Get(SignatureHeader) != Sign(secret, at, raw) {
		t.Errorf("the signature is %q, %v", head.Get(SignatureHeader), err)
	}
}

// TestSign: what openssl says of the same:
// printf '1767323045.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
func TestSign(t *testing.T) {
	const want = "t=1767323045,v1=4c32cf781f3565724c268f18d7bc9ba04dd466529b0127d152f7e9f20a8ea5e0"
	if got := Sign("0123456789abcdef", time.Unix(1767323045, 0), []byte(`{"a":1}`)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnswers(t *testing.T) {
	later := time.Now().Add(2 * time.Minute).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		code      int
		after     string
		done      bool
		temporary bool
		min, max  time.Duration
	}{
		{code: 200, done: true},
		{code: 202, done: true},
		{code: 304},
		{code: 400},
		{code: 401},
		{code: 404},
		{code: 410, after: "10"},
		{code: 408, temporary: true},
		{code: 429, after: "30", temporary: true, min: 30 * time.Second, max: 30 * time.Second},
		{code: 429, after: " 4000000000 ", temporary: true, min: maxRetryAfter, max: maxRetryAfter},
		{code: 503, after: later, temporary: true, min: time.Minute, max: 2 * time.Minute},
		{code: 503, after: "Thu, 01 Jan 1970 00:00:00 GMT", temporary: true},
		{code: 503, after: "soon", temporary: true},
		{code: 500, temporary: true},
	} {
		t.Run(strconv.Itoa(c.code)+" "+c.after, func(t *testing.T) {
			s := newPushServer(t, (*httptest.Server).Start)
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.code)
			})
			err := openHook(t, s.URL, nil).Wake(t.Context(), phone)
			if c.done {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			f, ok := errors.AsType[*message.Failure](err)
			if !ok || f.Temporary != c.temporary || f.RetryAfter < c.min || f.RetryAfter > c.max {
				t.Errorf("got %+v", f)
			}
		})
	}
}

// TestRedirects: only to the same server, and only with the same request.
func TestRedirects(t *testing.T) {
	other := newPushServer(t, (*httptest.Server).Start)
	for _, c := range []struct {
		name string
		code int
		to   string
		done bool
	}{
		{"another page", http.StatusPermanentRedirect, "/there", true},
		{"another page by GET", http.StatusFound, "/there", false},
		{"another server", http.StatusTemporaryRedirect, other.URL, false},
		{"round and round", http.StatusTemporaryRedirect, "/", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newPushServer(t, (*httptest.Server).Start)
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/there" && r.Method == http.MethodPost {
					return
				}
				http.Redirect(w, r, c.to, c.code)
			})
			err := openHook(t, s.URL, nil).Wake(t.Context(), phone)
			if (err == nil) != c.done || err != nil && message.AsFailure(err).Temporary {
				t.Errorf("got %v", err)
			}
		})
	}
	if n := other.conns.Load(); n != 0 {
		t.Errorf("the other server saw %d connections", n)
	}
}

// TestTLS: the server's certificate is checked, against the operator's own
// authorities if there are any.
func TestTLS(t *testing.T) {
	s := newPushServer(t, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		s.StartTLS()
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	p := openHook(t, s.URL, func(c *Config) { c.CA = ca })
	if err := p.Wake(t.Context(), phone); err != nil {
		t.Errorf("with its own authority: %v", err)
	}
	if err := openHook(t, s.URL, nil).Wake(t.Context(), phone); err == nil || !message.AsFailure(err).Temporary {
		t.Errorf("with those of the system: %v", err)
	}
}

func TestCA(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".absent"} {
		c := Plugin.NewConfig().(*Config)
		c.URL, c.CA = "https://push.example.com", file
		_, err := plugin.Open[plugin.Pusher](t.Context(), Plugin, plugin.Env{}, c)
		if invalid, ok := errors.AsType[*plugin.InvalidKey](err); !ok || invalid.Key != "ca" {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestSlowAndEndless: a server that is slow, or whose answer doesn't end, costs no
// more than the timeout.
func TestSlowAndEndless(t *testing.T) {
	over := make(chan struct{})
	s := newPushServer(t, (*httptest.Server).Start)
	t.Cleanup(func() { close(over) })
	p := openHook(t, s.URL, func(c *Config) { c.Timeout = minTimeout })
	s.answers(func(http.ResponseWriter, *http.Request) { <-over })
	if err := p.Wake(t.Context(), phone); err == nil || !message.AsFailure(err).Temporary {
		t.Errorf("a silent server: %v", err)
	}
	p = openHook(t, s.URL, nil)
	s.answers(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Wake(ctx, phone); err != nil {
		t.Errorf("an endless answer: %v", err)
	}
}

// TestErrorsAreDiscreet: neither the URL nor the token is in an error.
func TestErrorsAreDiscreet(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	err = openHook(t, "http://"+address+"/wake?key=hidden", nil).Wake(t.Context(), phone)
	if err == nil || !message.AsFailure(err).Temporary {
		t.Fatalf("nobody listens: %v", err)
	}
	for _, word := range []string{"hidden", phone.ID} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("%q is in %q", word, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		wrong  []string
	}{
		{"a URL alone", func(*Config) {}, nil},
		{"everything", func(c *Config) {
			c.Secret, c.Header = secret, map[string]string{"X-Key": "a b"}
			c.Timeout, c.Keep = maxTimeout, plugin.MaxKeep
		}, nil},
		{"no URL", func(c *Config) { c.URL = "" }, []string{"url"}},
		{"another scheme", func(c *Config) { c.URL = "ftp://push.example.com" }, []string{"url"}},
		{"no host", func(c *Config) { c.URL = "https:///wake" }, []string{"url"}},
		{"a password", func(c *Config) { c.URL = "https://a:b@push.example.com" }, []string{"url"}},
		{"a short secret", func(c *Config) { c.Secret = "short" }, []string{"secret"}},
		{"times", func(c *Config) { c.Timeout, c.Keep = time.Hour, time.Second }, []string{"timeout", "keep"}},
		{"header", func(c *Config) {
			c.Header = map[string]string{"a b": "x", "x-imgate-signature": "x", "host": "x", "X-Break": "a\r\nb", "": "x"}
		}, []string{"header.", "header.X-Break", "header.a b", "header.host", "header.x-imgate-signature"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := *Plugin.NewConfig().(*Config)
			config.URL = "https://push.example.com/wake"
			c.change(&config)
			var keys []string
			for _, err := range plugin.Mistakes(config.Validate()) {
				invalid, ok := errors.AsType[*plugin.InvalidKey](err)
				if !ok {
					t.Fatalf("got %v", err)
				}
				for _, value := range slices.Collect(maps.Values(config.Header)) {
					if len(value) > 1 && strings.Contains(err.Error(), value) {
						t.Errorf("the value is told: %v", err)
					}
				}
				keys = append(keys, invalid.Key)
			}
			if !slices.Equal(keys, c.wrong) {
				t.Errorf("wrong are %q, want %q", keys, c.wrong)
			}
		})
	}
}
