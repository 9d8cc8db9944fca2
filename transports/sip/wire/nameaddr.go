package wire

import "strings"

// NameAddr is the value of From, To or Contact (RFC 3261 §20.10).
type NameAddr struct {
	Display string // without quotes
	URI     string // as it was written
	Params  Params // behind the URI
}

// ParseNameAddr reads one address, with or without angle brackets. That the URI
// is one, ParseURI tells.
func ParseNameAddr(s string) (NameAddr, bool) {
	var a NameAddr
	before, after, found, ok := cutBracket(s)
	switch {
	case !ok:
		return a, false
	case !found: // addr-spec: what follows a semicolon belongs to the header
		uri, params, _ := strings.Cut(s, ";")
		a.URI, a.Params = strings.TrimSpace(uri), Params(params)
		ok = !strings.ContainsAny(a.URI, ",?") // those must have brackets (RFC 3261 §20)
	default:
		uri, rest, closed := strings.Cut(after, ">")
		params, ok := cutParams(rest)
		if !closed || !ok || !a.setDisplay(strings.TrimSpace(before)) {
			return a, false
		}
		a.URI, a.Params = uri, params
	}
	return a, ok && a.URI != "" && !strings.ContainsAny(a.URI, " \t\"<>") && a.Params.valid("tag")
}

// cutBracket divides s at the first < that is not in a quoted string.
func cutBracket(s string) (before, after string, found, ok bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '<':
			return s[:i], s[i+1:], true, true
		case '"':
			n := quoted(s[i:])
			if n == 0 {
				return "", "", false, false
			}
			i += n - 1
		case ';':
			return s, "", false, true
		}
	}
	return s, "", false, true
}

func cutParams(rest string) (Params, bool) {
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return "", true
	}
	return Params(rest[1:]), rest[0] == ';'
}

// setDisplay takes one quoted string, or words (RFC 3261 §25.1: *(token LWS)).
func (a *NameAddr) setDisplay(s string) bool {
	if s != "" && s[0] == '"' {
		a.Display = Unquote(s)
		return quoted(s) == len(s)
	}
	a.Display = s
	return !strings.ContainsAny(s, `"<>,;:@\`)
}

// Via is the topmost Via of a message (RFC 3261 §20.42).
type Via struct {
	Transport string // as written: "UDP"
	Host      string // of sent-by
	Port      uint16 // of sent-by; 0: not given
	Branch    string // empty, or without the magic cookie: a peer of RFC 2543

	version  string // of SIP, as written
	value    string // without what follows a comma
	rest     string // what follows, with the comma
	rport    int    // where an rport without a value ends in value; 0: there is none
	hasRPort bool   // with or without a value
}

// parseVia reads the first Via of a header field, which may hold several.
func parseVia(s string) (Via, bool) {
	var v Via
	value, _, found, ok := cut(s, ",")
	if !ok {
		return v, false
	}
	v.value = strings.TrimRight(value, " \t;") // a semicolon too many would become two
	if found != 0 {
		v.rest = s[len(value):]
	}
	protocol, params, _ := strings.Cut(v.value, ";")
	if !v.parseProtocol(protocol) {
		return v, false
	}
	return v, v.parseParams(len(v.value)-len(params), Params(params))
}

// parseProtocol reads "SIP/2.0/UDP host:port". Spaces may stand around the
// slashes and the colon.
func (v *Via) parseProtocol(s string) bool {
	name, s, _ := strings.Cut(s, "/")
	version, s, ok := strings.Cut(s, "/")
	v.version = strings.Trim(version, " \t")
	if !ok || !strings.EqualFold(strings.Trim(name, " \t"), "SIP") || !IsToken(v.version) {
		return false
	}
	s = strings.Trim(s, " \t")
	space := strings.IndexAny(s, " \t")
	if space < 0 {
		return false
	}
	v.Transport = s[:space]
	return IsToken(v.Transport) && v.parseSentBy(strings.Trim(s[space:], " \t"))
}

// isSound tells whether a Via is of our version of SIP, and followed by others
// only. One that isn't does to answer the request, without what follows.
func (v *Via) isSound() bool {
	if v.rest == "" {
		return v.version == "2.0"
	}
	others, ok := List([]string{v.rest})
	for _, other := range others {
		protocol, _, _ := strings.Cut(other, ";")
		ok = ok && new(Via).parseProtocol(protocol)
	}
	if !ok {
		v.rest = ""
	}
	return ok && v.version == "2.0"
}

func (v *Via) parseSentBy(s string) bool {
	host, port := s, ""
	hasPort := false
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		host, port, hasPort = s[:colon], s[colon+1:], true
	}
	v.Host = strings.Trim(host, " \t")
	if hasPort {
		n, ok := Number(strings.Trim(port, " \t"), 65535)
		if !ok || n == 0 {
			return false
		}
		v.Port = uint16(n)
	}
	return IsHost(v.Host)
}

func (v *Via) parseParams(at int, p Params) bool {
	branches, rports, receiveds := 0, 0, 0
	var from, to int // where a received is
	for p != "" {
		name, value, rest, ok := p.next()
		if !ok {
			return false
		}
		end := at + len(p) - len(rest)
		if rest != "" || p[len(p)-1] == ';' {
			end-- // the semicolon
		}
		switch {
		case strings.EqualFold(name, "branch"):
			v.Branch = value
			branches++
		case strings.EqualFold(name, "rport"):
			v.hasRPort = true
			rports++
			if value == "" {
				v.rport = end
			}
		case strings.EqualFold(name, "received"):
			from, to = at-1, end // with the semicolon in front
			receiveds++
		}
		at += len(p) - len(rest)
		p = rest
	}
	if receiveds > 0 {
		v.cutReceived(from, to)
	}
	return branches <= 1 && rports <= 1 && receiveds <= 1 && (v.Branch == "" || IsToken(v.Branch))
}

// cutReceived takes away what the sender wrote though only we may: where it came
// from, we know.
func (v *Via) cutReceived(from, to int) {
	v.value = v.value[:from] + v.value[to:]
	if v.rport > from {
		v.rport -= to - from
	}
}
