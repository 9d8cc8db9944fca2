package wire

import "strings"

// Classes of octets (RFC 3261 §25.1).
const (
	classToken   = 1 << iota // in a token
	classControl             // never in a header section, but for HTAB
	classURI                 // in a URI: unreserved, reserved, and the % of an escape
	classUser                // in the user part of a URI without being escaped
	classHost                // in a host name
	classEscape              // the % of an escape
)

var classes = classify()

func classify() (table [256]uint8) {
	mark := func(class uint8, octets string) {
		for i := range len(octets) {
			table[octets[i]] |= class
		}
	}
	const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	const unreserved = alphanumeric + "-_.!~*'()"
	mark(classToken, alphanumeric+"-.!%*_+`'~")
	mark(classURI, unreserved+";/?:@&=+$,[]%")
	mark(classUser, unreserved+"&=+$,;?/")
	mark(classHost, alphanumeric+"-._")
	mark(classEscape, "%")
	for c := range 0x20 {
		table[c] |= classControl
	}
	table['\t'] &^= classControl
	table[0x7f] |= classControl
	return table
}

func all(s string, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

// IsToken tells whether s is a token (RFC 3261 §25.1).
func IsToken(s string) bool { return s != "" && all(s, classToken) }

func hasControl(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&classControl != 0 {
			return true
		}
	}
	return false
}

// Number reads decimal digits and nothing else. It fails above limit.
func Number(s string, limit uint64) (uint64, bool) {
	if s == "" || len(s) > 10 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return n, n <= limit
}

// quoted returns how long the quoted string is that s begins with, quotes
// included, or 0 if it doesn't end.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// Unquote returns what a quoted string says; anything else unchanged.
func Unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Quote writes a quoted string (RFC 3261 §25.1).
func Quote(s string) string {
	if strings.ContainsAny(s, `"\`) {
		s = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
	}
	return `"` + s + `"`
}

// cut divides s at the first of the separators that is neither in a quoted
// string nor between angle brackets. found is 0 if there is none; ok is false
// if a quoted string or a bracket doesn't end.
func cut(s, separators string) (before, after string, found byte, ok bool) {
	inBrackets := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"' && !inBrackets:
			n := quoted(s[i:])
			if n == 0 {
				return "", "", 0, false
			}
			i += n - 1
		case c == '<':
			inBrackets = true
		case c == '>':
			inBrackets = false
		case !inBrackets && strings.IndexByte(separators, c) >= 0:
			return s[:i], s[i+1:], c, true
		}
	}
	return s, "", 0, !inBrackets
}

// Next takes the first of the values off that commas divide. ok is false if a
// quoted string or a bracket doesn't end.
func Next(s string) (item, rest string, ok bool) {
	item, rest, _, ok = cut(s, ",")
	return strings.Trim(item, " \t"), rest, ok
}

// List returns the values of header fields that hold several each.
func List(fields []string) (items []string, ok bool) {
	for _, rest := range fields {
		for rest != "" {
			var item string
			if item, rest, ok = Next(rest); !ok {
				return nil, false
			}
			if item != "" {
				items = append(items, item)
			}
		}
	}
	return items, true
}

// Params are the parameters that follow a value, without the first semicolon.
type Params string

// next takes the first parameter off. ok is false if it isn't one.
func (p Params) next() (name, value string, rest Params, ok bool) {
	item, after, _, ok := cut(string(p), ";")
	if !ok {
		return "", "", "", false
	}
	name, value, _ = strings.Cut(item, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	return name, value, Params(after), IsToken(name)
}

// Get returns a parameter, a quoted one without its quotes. Names are compared
// without regard to case (RFC 3261 §7.3.1).
func (p Params) Get(name string) (value string, found bool) {
	for p != "" {
		n, v, rest, ok := p.next()
		if !ok {
			return "", false
		}
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return Unquote(v), true
		}
		p = rest
	}
	return "", false
}

// Valid tells whether all parameters are such.
func (p Params) Valid() bool { return p.valid("") }

// valid tells whether all parameters are such, and the named one is not there
// twice.
func (p Params) valid(once string) bool {
	seen := false
	for p != "" {
		n, _, rest, ok := p.next()
		if !ok {
			return false
		}
		if len(n) == len(once) && strings.EqualFold(n, once) {
			if seen {
				return false
			}
			seen = true
		}
		p = rest
	}
	return true
}
