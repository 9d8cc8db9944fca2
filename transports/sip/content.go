package sip

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// clockSkew is how far off a sender's Date may be to be believed.
const clockSkew = 5 * time.Minute

// carried are the header fields that travel along (RFC 3428 §8 names most).
var carried = []string{"Subject", "Content-Language", "Content-Disposition", "In-Reply-To", "Date"}

// headersOf returns what travels along: a Date only if it is about now, and
// nothing that isn't UTF-8 (RFC 3261 §25.1): others would stumble over it.
func headersOf(x *wire.Exchange, now time.Time) []message.Header {
	var headers []message.Header
	for _, h := range x.Headers() {
		i := slices.IndexFunc(carried, func(name string) bool { return strings.EqualFold(name, h.Name) })
		if i < 0 || h.Value == "" || !utf8.ValidString(h.Value) || carried[i] == "Date" && !isAbout(h.Value, now) {
			continue
		}
		headers = append(headers, message.Header{Name: carried[i], Value: h.Value})
	}
	return headers
}

func isAbout(date string, now time.Time) bool {
	t, err := time.Parse(http.TimeFormat, date)
	return err == nil && t.Sub(now).Abs() <= clockSkew
}

// dispositions are what we know that can be done with the body of a message
// (RFC 3261 §20.11, RFC 2183, RFC 5438). Nothing else can be demanded of a
// recipient that may sit behind another protocol.
var dispositions = []string{"render", "inline", "attachment", "notification"}

// encodings are those that we undo: what is kept and sent on has none, for those
// who don't know them, and so that a policy can look into it.
const encodings = "gzip, deflate, identity"

// bodyOf is the body of a message as it was before it was encoded (RFC 3261
// §20.12), at most max octets; the reply is the answer if there is none.
func bodyOf(x *wire.Exchange, max int) ([]byte, *wire.Reply) {
	encoded := x.All("Content-Encoding")
	if len(encoded) == 0 || len(x.Body) == 0 {
		return x.Body, nil
	}
	body, err := content.Decode(strings.Join(encoded, ","), x.Body, max)
	switch {
	case errors.Is(err, content.ErrEncoding):
		return nil, &wire.Reply{Status: 415, Headers: []wire.Header{{Name: "Accept-Encoding", Value: encodings}}}
	case errors.Is(err, content.ErrTooLarge):
		return nil, &wire.Reply{Status: 413}
	case err != nil:
		return nil, bad("Bad Content-Encoding")
	}
	return body, nil
}

// contentRefusal is the answer to a body of a kind that we can't carry (RFC 3261
// §8.2.3); nil: we can. A transfer encoding is MIME's, and SIP has none (§20): who
// gets the message would take what was encoded for the text.
func contentRefusal(x *wire.Exchange) *wire.Reply {
	for _, h := range x.Headers() {
		switch h.Name {
		case "Content-Type":
			if !isMediaType(h.Value) {
				return bad("Bad Content-Type")
			}
		case "Content-Disposition":
			if !isKnownDisposition(h.Value) {
				return &wire.Reply{Status: 415, Phrase: "Unsupported Content-Disposition"}
			}
		default:
			if strings.EqualFold(h.Name, "Content-Transfer-Encoding") && !slices.Contains(transfers, strings.ToLower(h.Value)) {
				return &wire.Reply{Status: 415, Phrase: "Unsupported Content-Transfer-Encoding"}
			}
		}
	}
	return nil
}

// transfers are the transfer encodings that leave a body as it is (RFC 2045 §6.2).
var transfers = []string{"", "7bit", "8bit", "binary"}

// isKnownDisposition also takes one that isn't known if it is optional.
func isKnownDisposition(value string) bool {
	disposition, params, _ := strings.Cut(value, ";")
	disposition = strings.ToLower(strings.Trim(disposition, " \t"))
	handling, _ := wire.Params(params).Get("handling")
	return disposition == "" || slices.Contains(dispositions, disposition) || strings.EqualFold(handling, "optional")
}

// isMediaType checks type and subtype, and that parameters can be told apart:
// what they say is for who reads the body.
func isMediaType(s string) bool {
	kind, params, _ := strings.Cut(s, ";")
	main, sub, _ := strings.Cut(strings.TrimRight(kind, " \t"), "/")
	return wire.IsToken(main) && wire.IsToken(sub) && wire.Params(params).Valid() && utf8.ValidString(params)
}

// displayName is what a sender calls itself; empty if that isn't UTF-8.
func displayName(x *wire.Exchange) string {
	if !utf8.ValidString(x.From.Display) {
		return ""
	}
	return x.From.Display
}

// traceOf returns the trace under which a trusted peer follows a message (W3C
// Trace Context, §3.2); empty: none that can be read.
func traceOf(x *wire.Exchange, peer *Peer) string {
	if peer == nil {
		return ""
	}
	trace := x.Get("traceparent")
	if !isTrace(trace) {
		return ""
	}
	return trace
}

// isTrace accepts version 00: four fields of lower-case hexadecimal digits,
// neither identifier all zeros.
func isTrace(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	trace, span, flags := s[3:35], s[36:52], s[53:]
	return isLowerHex(trace+span+flags) && strings.Trim(trace, "0") != "" && strings.Trim(span, "0") != ""
}

func isLowerHex(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) < 0
}
