package wire

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
)

// Errors of URIs.
var (
	ErrBadURI    = errors.New("not a SIP URI")
	ErrBadScheme = errors.New("not the scheme sip or sips")
)

// ParseURI reads a SIP URI (RFC 3261 §19.1). It refuses with ErrBadURI what
// could be read in two ways: more than one @, brackets elsewhere than around
// the host, a user with a colon in it. URIs of other schemes are ErrBadScheme.
// Whether a flow keeps what sips promises is for the caller to say: see IsSecure.
func ParseURI(text string) (sip.Uri, error) {
	var u sip.Uri
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || rest == "" || !IsToken(scheme) {
		return u, ErrBadURI
	}
	if !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return u, ErrBadScheme
	}
	if !all(rest, classURI) || !escapesAreValid(rest) || !isUnambiguous(rest) {
		return u, ErrBadURI
	}
	if sip.ParseUri(text, &u) != nil || !IsHost(u.Host) || u.Port < 0 || u.Port > 65535 {
		return u, ErrBadURI
	}
	if strings.Contains(rest, "@") && (u.User == "" || !all(u.User, classUser|classEscape)) {
		return u, ErrBadURI
	}
	return u, nil
}

// IsSecure tells whether a URI asks for TLS on every hop (RFC 3261 §26.2.2).
func IsSecure(u sip.Uri) bool { return strings.EqualFold(u.Scheme, "sips") }

// parseTarget reads a Request-URI: that of SIP, or a telephone number (RFC 3966),
// which has a user and no host. Of the parameters that a number may have none
// changes whom it reaches here: a local number is local to us, whatever its
// phone-context, and an extension (ext) is nothing that a message could dial.
func parseTarget(text string) (sip.Uri, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	if !strings.EqualFold(scheme, "tel") {
		return ParseURI(text)
	}
	digits, _, _ := strings.Cut(rest, ";")
	number, ok := message.ParseNumber(digits)
	if !ok || !all(rest, classURI) || !escapesAreValid(rest) {
		return sip.Uri{}, ErrBadURI
	}
	return sip.Uri{Scheme: "tel", User: number}, nil
}

// RequestURI returns what of a contact may stand in a Request-URI: not the header
// fields that it asks for (RFC 3261 §19.1.1, table 1).
func RequestURI(contact string) string {
	host := strings.LastIndexByte(contact, '@') + 1 // a ? in front of it belongs to the user
	if i := strings.IndexByte(contact[host:], '?'); i >= 0 {
		return contact[:host+i]
	}
	return contact
}

// isUnambiguous checks what sipgo's parser doesn't.
func isUnambiguous(rest string) bool {
	if strings.HasPrefix(rest, "//") || strings.Count(rest, "@") > 1 {
		return false
	}
	at := strings.IndexByte(rest, '@')
	if at > 0 && strings.IndexByte(rest[:at], ':') >= 0 {
		return false
	}
	host := rest[at+1:]
	if !strings.ContainsAny(rest, "[]") {
		return true
	}
	end := strings.IndexByte(host, ']')
	if host == "" || host[0] != '[' || end < 0 || strings.Count(rest, "[") > 1 || strings.Count(rest, "]") > 1 {
		return false
	}
	after := host[end+1:]
	return after == "" || strings.IndexByte(":;?", after[0]) >= 0
}

func escapesAreValid(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return false
		}
		i += 2
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// IsHost accepts a name, an IPv4 address, and an IPv6 address in brackets.
func IsHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		return ok && err == nil && ip.Is6() && ip.Zone() == ""
	}
	return host != "" && all(host, classHost)
}

// Address returns who a URI names, unescaped; a telephone number, of the scheme tel
// or with user=phone, without separators (RFC 3261 §19.1.6). It refuses what
// unescapes to control characters, to what isn't UTF-8 (RFC 3261 §19.1.2), or to an
// @, which would make a@b@c of it.
func Address(u sip.Uri) (message.Address, error) {
	user := u.User
	if strings.IndexByte(user, '%') >= 0 {
		var err error
		if user, err = url.PathUnescape(user); err != nil {
			return message.Address{}, ErrBadURI
		}
	}
	if strings.IndexByte(user, '@') >= 0 || !utf8.ValidString(user) {
		return message.Address{}, ErrBadURI
	}
	if kind, _ := u.UriParams.Get("user"); strings.EqualFold(kind, "phone") {
		user = subscriber(user)
	}
	a := message.Address{User: user, Host: strings.ToLower(u.Host)}
	return a, a.Validate()
}

// subscriber returns the number of a telephone-subscriber; what isn't one stays as
// it is.
func subscriber(user string) string {
	number, _, _ := strings.Cut(user, ";")
	if number, ok := message.ParseNumber(number); ok {
		return number
	}
	return user
}

// AppendURI writes the SIP URI of an address. An address without a host, a
// number, gets the given one.
func AppendURI(b []byte, a message.Address, host string) []byte {
	b = append(b, "sip:"...)
	for i := range len(a.User) {
		if c := a.User[i]; classes[c]&classUser != 0 && c != '/' { // not sip://
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if a.Host != "" {
		host = a.Host
	}
	b = append(b, '@')
	return append(b, host...)
}

const hexDigits = "0123456789ABCDEF"

// Identity returns who is named by a URI that is no more than a name: sip, sips
// or tel. How its owner could be reached by it is no matter.
func Identity(uri string) (message.Address, error) {
	if scheme, rest, _ := strings.Cut(uri, ":"); strings.EqualFold(scheme, "sips") {
		uri = "sip:" + rest
	}
	u, err := parseTarget(uri)
	if err != nil {
		return message.Address{}, err
	}
	return Address(u)
}
