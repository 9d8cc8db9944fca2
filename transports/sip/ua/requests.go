package ua

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
)

// Result is the final response to a request.
type Result struct {
	Code       int
	Reason     string        // the server's words: not fit for a terminal
	RetryAfter time.Duration // 0: it doesn't say
	Accept     string        // with 415: the MIME types that would pass
}

// Options are what a message may carry besides its body.
type Options struct {
	// Expires is how long the sender wants the message kept, to a second.
	// Zero: now or never. Nil: it doesn't say.
	Expires *time.Duration
}

// Message sends a message (RFC 3428), to a telephone number if the recipient has no
// domain (RFC 3966), and waits for its final response, at most
// 64*T1 for each round of credentials. An error means that there is none, and
// that nobody knows whether the message was taken.
func (a *Agent) Message(ctx context.Context, to message.Address, contentType string, body []byte, o Options) (Result, error) {
	if err := to.Validate(); err != nil {
		return Result{}, fmt.Errorf("recipient %q: %w", to, err)
	}
	if _, isNumber := message.ParseNumber(to.User); to.Host == "" && !isNumber {
		return Result{}, fmt.Errorf("recipient %q: %w", to, message.ErrBadAddress)
	}
	if !isMediaType(contentType) {
		return Result{}, errMediaType
	}
	r := request{
		method: "MESSAGE", uri: targetOf(to), to: targetOf(to),
		callID: rand.Text(), tag: rand.Text(),
		headers: []string{"Content-Type: " + contentType},
		body:    body,
	}
	if o.Expires != nil {
		r.headers = append(r.headers, "Expires: "+seconds(*o.Expires))
	}
	response, err := a.do(ctx, r)
	if err != nil {
		return Result{}, err
	}
	return resultOf(response), nil
}

var errMediaType = errors.New("not a MIME type: expected one such as text/plain")

func isMediaType(s string) bool { return plainHeader(s) && strings.Contains(s, "/") }

// plainHeader tells whether a value can stand in a header field as it is.
func plainHeader(value string) bool {
	return value != "" && strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

func resultOf(r *sip.Response) Result {
	result := Result{Code: r.StatusCode, Reason: r.Reason}
	if h := r.GetHeader("Retry-After"); h != nil {
		result.RetryAfter = leadingSeconds(h.Value())
	}
	var accept []string
	for _, h := range r.GetHeaders("Accept") {
		accept = append(accept, h.Value())
	}
	result.Accept = strings.Join(accept, ", ")
	return result
}

// leadingSeconds reads delta-seconds that parameters or a comment may follow;
// what it can't read is 0.
func leadingSeconds(value string) time.Duration {
	value = strings.TrimSpace(value)
	end := strings.IndexFunc(value, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		value = value[:end]
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// RefusedError is a registration that the server answered with a failure.
type RefusedError struct{ Result Result }

// Error says in words why.
func (e *RefusedError) Error() string { return "registration " + e.Result.Words() }

// Register binds the agent's socket, or connection, to its address for about expires (RFC 3261
// §10.2) and returns for how long the server agreed. A failure response is a
// *RefusedError.
func (a *Agent) Register(ctx context.Context, expires time.Duration) (time.Duration, error) {
	response, err := a.register(ctx, expires)
	if err != nil {
		return 0, err
	}
	if least := minExpires(response); least > expires {
		if response, err = a.register(ctx, least); err != nil {
			return 0, err
		}
		expires = least
	}
	if !response.IsSuccess() {
		return 0, &RefusedError{resultOf(response)}
	}
	return a.granted(response, expires), nil
}

// Unregister ends the agent's own binding and leaves those of others alone.
func (a *Agent) Unregister(ctx context.Context) error {
	response, err := a.register(ctx, 0)
	if err != nil {
		return err
	}
	if !response.IsSuccess() {
		return &RefusedError{resultOf(response)}
	}
	return nil
}

func (a *Agent) register(ctx context.Context, expires time.Duration) (*sip.Response, error) {
	return a.do(ctx, request{
		method: "REGISTER", uri: "sip:" + a.config.Address.Host, to: uriOf(a.config.Address),
		callID: a.callID, tag: rand.Text(),
		headers:   []string{"Expires: " + seconds(expires)},
		registers: true,
	})
}

const statusIntervalTooBrief = 423 // RFC 3261 §21.4.17

// minExpires is what a 423 asks for (RFC 3261 §10.2.8), 0 for all others.
func minExpires(r *sip.Response) time.Duration {
	h := r.GetHeader("Min-Expires")
	if r.StatusCode != statusIntervalTooBrief || h == nil {
		return 0
	}
	return leadingSeconds(h.Value())
}

// granted finds how long our contact is bound; servers list all the bindings
// that the address has.
func (a *Agent) granted(r *sip.Response, asked time.Duration) time.Duration {
	for _, h := range r.GetHeaders("Contact") {
		contact, ok := h.(*sip.ContactHeader)
		if !ok || contact.Address.Port != int(a.Local().Port()) || contact.Address.User != escapedUser(a.config.Address) {
			continue
		}
		if value, ok := contact.Params.Get("expires"); ok && leadingSeconds(value) > 0 {
			return leadingSeconds(value)
		}
	}
	if h := r.GetHeader("Expires"); h != nil && leadingSeconds(h.Value()) > 0 {
		return leadingSeconds(h.Value())
	}
	return asked
}

func escapedUser(a message.Address) string {
	user, _, _ := strings.Cut(strings.TrimPrefix(uriOf(a), "sip:"), "@")
	return user
}

// KeepRegistered repeats a registration that was granted for some time, at
// half of it, until ctx ends; and at once when a connection breaks, which it
// keeps alive and watches (RFC 5626 §4.4.1). After a failure it tries again ever
// more slowly, from one second up to half a minute, and tells failed each time.
func (a *Agent) KeepRegistered(ctx context.Context, granted time.Duration, failed func(error)) {
	const first, longest = time.Second, 30 * time.Second
	asked, pause, wait := granted, first, granted/2
	for a.rest(ctx, wait) {
		again, err := a.Register(ctx, asked)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failed(err)
			if !sleep(ctx, pause) {
				return
			}
			wait, pause = 0, min(2*pause, longest)
			continue
		}
		wait, pause = again/2, first
	}
}

// rest waits for d, or until the connection breaks or leads to a server that
// takes no traffic any more; false means that ctx ended. Meanwhile it pings.
func (a *Agent) rest(ctx context.Context, d time.Duration) bool {
	l := a.current()
	if !l.isStream() {
		return sleep(ctx, d)
	}
	until := time.NewTimer(d)
	defer until.Stop()
	ping := time.NewTicker(a.config.timers.ping)
	defer ping.Stop()
	for {
		select {
		case <-until.C:
			return true
		case <-l.ended:
			return true
		case <-ctx.Done():
			return false
		case <-ping.C:
			if !a.isAlive(ctx, l) {
				l.conn.Close() // and so its reader ends
			} else if a.several() && a.hasMoved(ctx, l) {
				return true
			}
		}
	}
}

// isAlive tells whether the server answers a ping in time.
func (a *Agent) isAlive(ctx context.Context, l *link) bool {
	if l.ping() != nil {
		return false
	}
	patience := time.NewTimer(a.config.timers.pong)
	defer patience.Stop()
	select {
	case <-l.pongs:
		return true
	case <-patience.C:
		return false
	case <-l.ended:
		return false
	case <-ctx.Done():
		return true // who knows
	}
}

// hasMoved asks the servers which of them takes traffic, and tells whether that
// is another than the one at the end of a connection: that one can't reach us
// over it. Over UDP every server can.
func (a *Agent) hasMoved(ctx context.Context, l *link) bool {
	uri := "sip:" + a.config.Address.Host
	_, err := a.do(ctx, request{method: "OPTIONS", uri: uri, to: uri, callID: rand.Text(), tag: rand.Text()})
	return err == nil && a.current() != l
}

// sleep waits; false means that ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
