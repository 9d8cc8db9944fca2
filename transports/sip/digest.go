package sip

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// errBadCredentials is what parseDigest returns.
var errBadCredentials = errors.New("not digest credentials")

// maxCredential is the longest value, in octets, of one field of credentials.
const maxCredential = 1024

// parseDigest reads the value of Authorization or Proxy-Authorization (RFC 7616
// §3.4). Each field may be there once; unknown ones are skipped.
func parseDigest(value string) (plugin.Digest, error) {
	var d plugin.Digest
	scheme, rest, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Digest") {
		return d, errBadCredentials
	}
	for rest != "" {
		item, after, ok := wire.Next(rest)
		if !ok || !setDigestField(&d, item) {
			return d, errBadCredentials
		}
		rest = after
	}
	if d.Algorithm == "" {
		d.Algorithm = "MD5"
	}
	if d.Username == "" || d.Realm == "" || d.Nonce == "" || d.URI == "" || d.Response == "" {
		return d, errBadCredentials
	}
	return d, nil
}

func setDigestField(d *plugin.Digest, item string) bool {
	name, value, ok := strings.Cut(item, "=")
	if !ok {
		return item == "" // a comma too many
	}
	field := digestField(d, strings.TrimRight(name, " \t"))
	if field == nil {
		return true
	}
	value = strings.TrimLeft(value, " \t")
	if *field != "" || len(value) > maxCredential {
		return false
	}
	*field = wire.Unquote(value)
	switch field {
	case &d.Response:
		d.Response = strings.ToLower(d.Response)
	case &d.Algorithm:
		d.Algorithm = strings.ToUpper(d.Algorithm)
	}
	return true
}

func digestField(d *plugin.Digest, name string) *string {
	switch strings.ToLower(name) {
	case "username":
		return &d.Username
	case "realm":
		return &d.Realm
	case "nonce":
		return &d.Nonce
	case "uri":
		return &d.URI
	case "response":
		return &d.Response
	case "algorithm":
		return &d.Algorithm
	case "cnonce":
		return &d.CNonce
	case "qop":
		return &d.QOP
	case "nc":
		return &d.NC
	}
	return nil
}

// nonceCount reads nc: eight hexadecimal digits, not zero. Without qop there is
// none, and the count is zero (RFC 2069).
func nonceCount(d *plugin.Digest) (uint32, bool) {
	if d.QOP == "" {
		return 0, d.NC == "" && d.CNonce == ""
	}
	n, err := strconv.ParseUint(d.NC, 16, 32)
	return uint32(n), err == nil && n > 0 && len(d.NC) == 8 && d.QOP == "auth" && d.CNonce != ""
}

// md5Only are clients, by the beginning of their User-Agent, that give up at a
// challenge with an algorithm that they don't know, even if they know another
// one (RFC 8760 §2.4 wants them to pass over it).
var md5Only = []string{"baresip v0.", "baresip v1."}

// offered are those of our algorithms that go into a client's challenges.
// Whichever it answers with is accepted if it is configured. The libraries of
// browsers (JsSIP, SIP.js), whatever they call themselves, see only the last of
// several challenges, and know MD5 alone.
func offered(algorithms []string, userAgent, network string) []string {
	known := func(prefix string) bool { return strings.HasPrefix(userAgent, prefix) }
	inBrowser := network == "ws" || network == "wss"
	if slices.Contains(algorithms, "MD5") && (inBrowser || slices.ContainsFunc(md5Only, known)) {
		return []string{"MD5"}
	}
	return algorithms
}

// challenges are the header fields of a 401: one for each algorithm, all with
// the same nonce. stale tells the client to try again without asking its user
// (RFC 7616 §3.3).
func challenges(algorithms []string, realm, nonce string, stale bool) []wire.Header {
	headers := make([]wire.Header, 0, 2)
	for _, algorithm := range algorithms {
		value := "Digest realm=" + wire.Quote(realm) + `, nonce="` + nonce + `", algorithm=` + algorithm + `, qop="auth"`
		if stale {
			value += ", stale=true"
		}
		headers = append(headers, wire.Header{Name: "WWW-Authenticate", Value: value})
	}
	return headers
}
