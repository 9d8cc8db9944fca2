// Package webhook has sleeping apps woken by the operator's push server: an HTTP
// request for each app and wake-up, with what its contact said of how it is woken
// (RFC 8599).
//
// The request is a POST of a JSON object with the keys account, aor, device,
// provider, param, prid (pn-provider, pn-param and pn-prid of the contact), node
// and time (RFC 3339, when the request was made). With a secret it has a header
//
//	X-IMGate-Signature: t=1767323045,v1=5257a869e7ec…
//
// t is the time of the request in seconds since 1970, v1 the HMAC-SHA256 in hex,
// under the secret, of t, a full stop and the body as it came. Whoever verifies it
// compares in constant time, and refuses a t that is some minutes off.
//
// It must not know any push service. What wakes an app never gets into a log or an
// error: whoever has it can do so too.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the plugin.
var Plugin = plugin.DefinePush("webhook", "asks a push server over HTTP to wake apps that sleep",
	Config{Timeout: 5 * time.Second, Keep: 168 * time.Hour}, open)

// SignatureHeader is the header field that says who has made a request.
const SignatureHeader = "X-IMGate-Signature"

const (
	maxAnswer     = 64 << 10 // octets of an answer that are read, so that its connection can be used again
	maxRedirects  = 3
	maxRetryAfter = 5 * time.Minute
	idleConns     = 8 // that stay open, for so many calls at once
	idleFor       = 90 * time.Second
)

// webhook is the pusher.
type webhook struct {
	config Config
	node   string
	client *http.Client
	conns  *http.Transport
}

func open(_ context.Context, env plugin.Env, c Config) (plugin.Pusher, error) {
	dialer, err := certificates.OpenDialer(certificates.DialFiles{CA: c.CA}, env.Log)
	if err != nil {
		return nil, err
	}
	// Its own, so that Close can let go of the connections.
	conns := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		TLSClientConfig: dialer.Config(""), TLSHandshakeTimeout: c.Timeout,
		MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleFor, MaxResponseHeaderBytes: maxAnswer,
	}
	client := &http.Client{Transport: conns, Timeout: c.Timeout, CheckRedirect: redirect}
	return &webhook{config: c, node: env.Node, client: client, conns: conns}, nil
}

// redirect lets a server send us with the same request to another of its pages, and
// nowhere else: what is posted is for nobody else to see.
func redirect(next *http.Request, before []*http.Request) error {
	first := before[0]
	if next.Method != first.Method || next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host || len(before) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// request is the body of a request.
type request struct {
	Account  string    `json:"account"`
	AOR      string    `json:"aor"`
	Device   string    `json:"device"`
	Provider string    `json:"provider"`
	Param    string    `json:"param"`
	PRID     string    `json:"prid"`
	Node     string    `json:"node"`
	Time     time.Time `json:"time"`
}

// json writes it as people would: devices have angle brackets.
func (r request) json() ([]byte, error) {
	var body bytes.Buffer
	to := json.NewEncoder(&body)
	to.SetEscapeHTML(false)
	err := to.Encode(r)
	return body.Bytes(), err
}

// Wake is plugin.Pusher.
func (w *webhook) Wake(ctx context.Context, s plugin.Sleeper) error {
	now := time.Now().UTC()
	body, err := request{
		Account: s.Account, AOR: s.AOR.String(), Device: s.Device,
		Provider: s.Provider, Param: s.Param, PRID: s.ID, Node: w.node, Time: now.Truncate(time.Millisecond),
	}.json()
	if err != nil {
		return message.Fail(message.Internal, "request can't be written: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return message.Fail(message.Internal, "request can't be made: %w", withoutURL(err))
	}
	w.head(r, now, body)
	answer, err := w.client.Do(r)
	if err != nil {
		return message.FailForNow(message.Unavailable, "push server: %w", withoutURL(err))
	}
	defer answer.Body.Close()
	// What it says doesn't count; the connection is used again if it ends soon.
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer)
	return judge(answer, now)
}

// head writes the header.
func (w *webhook) head(r *http.Request, now time.Time, body []byte) {
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "imgate")
	for name, value := range w.config.Header {
		r.Header.Set(name, value)
	}
	if w.config.Secret != "" {
		r.Header.Set(SignatureHeader, Sign(w.config.Secret, now, body))
	}
}

// Sign returns what SignatureHeader says of a body that is sent at a time.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write([]byte(t + "."))
	sum.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(sum.Sum(nil))
}

// withoutURL takes the URL off an error: it may have a secret in it.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// judge tells what an answer means. What the server says besides its status isn't
// told: it may repeat what it was asked.
func judge(answer *http.Response, now time.Time) error {
	code := answer.StatusCode
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		f := message.FailForNow(message.Unavailable, "push server answered %d", code)
		f.RetryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
		return f
	}
	return message.Fail(message.Undelivered, "push server answered %d", code)
}

// retryAfter reads a Retry-After (RFC 9110 §10.2.3), seconds or a date; 0: there is
// none that can be read.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// Keep is plugin.Pusher.
func (w *webhook) Keep() time.Duration { return w.config.Keep }

// Close is plugin.Pusher.
func (w *webhook) Close() error {
	w.conns.CloseIdleConnections()
	return nil
}
