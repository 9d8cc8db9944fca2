package trunk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/translate"
	"github.com/imgate/imgate/transports/sip/wire"
)

const (
	// sendWithin bounds an attempt, look-ups and all servers together.
	sendWithin = 31 * time.Second
	// maxTried servers share that time.
	maxTried = 4
	// largeBody is from how many octets on a message goes to servers over TCP
	// first: with its header section it may be too large for a datagram (RFC 3261
	// §18.1.1).
	largeBody = 1000
	// headOctets is what a header section has, by and large.
	headOctets = 1000
	// maxAsked is how often one request is sent to one server: without
	// credentials, with those for a proxy and those for the server, and with a
	// fresh nonce.
	maxAsked = 4
)

// attempt is one to hand a request over.
type attempt struct {
	*Trunk
	work     *work
	to       way
	request  wire.Outgoing
	deadline time.Time
	sent     bool // somebody may have it, who hasn't answered
}

// hand sends a request to one server after the other until one answers with
// something else than 503 (RFC 3263 §4.3). An error is a *message.Failure:
// NoAnswer, if somebody may have the message.
func (t *Trunk) hand(ctx context.Context, w *work, to way, request wire.Outgoing) (*wire.Response, error) {
	a := &attempt{Trunk: t, work: w, to: to, request: request, deadline: time.Now().Add(sendWithin)}
	hops, err := a.hops(ctx)
	if err != nil {
		return nil, err
	}
	var response *wire.Response
	for i, hop := range hops {
		if i > 0 {
			t.metrics.failovers.Inc()
		}
		response, err = a.over(ctx, hop, len(hops)-i)
		if isFinal(response, err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, a.failure(err)
	}
	if response.Status == 503 && a.sent {
		return nil, message.FailForNow(message.NoAnswer, "answered 503 behind a server that didn't answer")
	}
	return response, nil
}

// isFinal tells whether no other server is to be tried.
func isFinal(response *wire.Response, err error) bool {
	if err == nil {
		return response.Status != 503
	}
	return errors.Is(err, wire.ErrUnsafe) || errors.Is(err, wire.ErrTooLarge) || errors.Is(err, wire.ErrNeedsStream)
}

// failure is that of an attempt whose last server didn't answer.
func (a *attempt) failure(err error) *message.Failure {
	failure := translate.Unanswered(err)
	if !failure.Temporary {
		return failure
	}
	failure.Reason = message.Unavailable
	if a.sent {
		failure.Reason = message.NoAnswer
	}
	return failure
}

// hops are the servers to try, in order. What a look-up says of the configured
// next hop is the operator's business: it doesn't end a message.
func (a *attempt) hops(ctx context.Context) ([]wire.Target, error) {
	hops, err := a.work.resolver.Hops(ctx, a.to.server)
	if err != nil {
		failure := message.AsFailure(err)
		if failure.Reason == message.Unavailable && ctx.Err() == nil {
			a.complaints.of(silentDNS, time.Now(), failure.Reason, "domain", a.to.server.Host, "error", err)
		}
		if !a.to.public && failure.Reason == message.UnknownRecipient {
			return nil, unavailable(err)
		}
		return nil, failure
	}
	allowed := slices.DeleteFunc(hops, func(hop wire.Target) bool {
		return a.work.isOurs(hop) || a.to.public && isInside(hop.Address.Addr())
	})
	switch {
	case len(allowed) == 0 && a.to.public:
		a.complaints.of(leadsInside, time.Now(), message.UnknownRecipient, "domain", a.to.server.Host)
		return nil, message.Fail(message.UnknownRecipient, "%s leads to us, or to a private address", a.to.server.Host)
	case len(allowed) == 0:
		return nil, unavailable(errOurs)
	}
	allowed = a.avoided.last(allowed, time.Now())
	if len(a.request.Body) > largeBody {
		slices.SortStableFunc(allowed, func(x, y wire.Target) int { return datagrams(x) - datagrams(y) })
	}
	return allowed[:min(len(allowed), maxTried)], nil
}

var errOurs = errors.New("the next hop is where we listen")

func datagrams(hop wire.Target) int {
	if hop.Network == "udp" {
		return 1
	}
	return 0
}

// over sends the request to one server, which has its share of the time that is
// left.
func (a *attempt) over(ctx context.Context, hop wire.Target, left int) (*wire.Response, error) {
	within := ctx
	if remaining := time.Until(a.deadline); left > 1 || remaining < sendWithin-time.Second { // else Timer F is enough
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, remaining/time.Duration(left))
		defer cancel()
	}
	response, err := a.overEither(within, hop)
	switch {
	case isFinal(response, err):
		if err == nil {
			a.avoided.remove(hop)
		}
	case err == nil:
		a.avoided.add(hop, translate.RetryAfter(response), time.Now())
	case ctx.Err() == nil: // it was the server's fault
		a.avoided.add(hop, 0, time.Now())
	}
	return response, err
}

// overEither sends what is too large for a datagram over TCP if the server can be
// reached so, unless it wants UDP; else in fragments, up to a configured size
// (RFC 3261 §18.1.1).
func (a *attempt) overEither(ctx context.Context, hop wire.Target) (*wire.Response, error) {
	response, err := a.ask(ctx, hop, a.request)
	if !errors.Is(err, wire.ErrNeedsStream) {
		return response, err
	}
	stream := wire.Target{Network: "tcp", Address: hop.Address}
	if transport, _ := a.to.server.UriParams.Get("transport"); transport == "" && !a.avoided.has(stream, time.Now()) {
		response, err := a.ask(ctx, stream, a.request)
		if !errors.Is(err, errNoConnection) {
			return response, err
		}
		a.avoided.add(stream, maxAvoidFor, time.Now())
	}
	fragmented := a.request
	fragmented.MaxDatagram = a.config.Limits.UDPMessage
	return a.ask(ctx, hop, fragmented)
}

// ask sends the request to a server, and again with the credentials that it asks
// for. What is an answer to a challenge of its own can't be taken for a replay,
// whatever other messages are under way.
func (a *attempt) ask(ctx context.Context, hop wire.Target, request wire.Outgoing) (*wire.Response, error) {
	fields := request.Headers
	answers, known := a.login.known(hop)
	if known {
		request.CSeq++ // as it has when it is challenged first
	}
	for n := 1; ; n++ {
		request.Headers = a.login.appendCredentials(fields[:len(fields):len(fields)], answers, request.Method, request.URI)
		response, err := a.exchange(ctx, hop, request)
		if err != nil {
			return nil, err
		}
		i := fieldOf(response.Status)
		if i < 0 {
			a.login.remember(hop, answers)
			return response, nil
		}
		s := a.login.challenged(response)
		if s == nil || n == maxAsked || answers[i] != nil && answers[i].fresh && !s.stale {
			a.login.forget(hop, i)
			return response, nil
		}
		answers[i] = s
		request.CSeq++
	}
}

// errNoConnection: there is no way to a server, and nothing was sent.
var errNoConnection = errors.New("no connection")

// exchange sends the request once, and again on a new connection if the one that
// was there had ended.
func (a *attempt) exchange(ctx context.Context, hop wire.Target, request wire.Outgoing) (*wire.Response, error) {
	response, err := a.exchangeOnce(ctx, hop, request)
	if hop.Network != "udp" && errors.Is(err, wire.ErrNoFlow) {
		return a.exchangeOnce(ctx, hop, request)
	}
	return response, err
}

func (a *attempt) exchangeOnce(ctx context.Context, hop wire.Target, request wire.Outgoing) (*wire.Response, error) {
	leave, err := a.windows.enter(ctx, hop, len(request.Body)+headOctets)
	if err != nil {
		return nil, fmt.Errorf("%w: too much is under way: %w", errNoConnection, err)
	}
	defer leave()
	flow, err := a.work.endpoint.Connect(ctx, hop)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoConnection, err)
	}
	response, err := a.work.endpoint.Do(ctx, flow, request)
	if mayHaveIt(err) {
		a.sent = true
	}
	return response, err
}

// mayHaveIt tells whether a request that failed may have arrived.
func mayHaveIt(err error) bool {
	for _, known := range []error{wire.ErrTimeout, wire.ErrNoFlow, wire.ErrClosed, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
