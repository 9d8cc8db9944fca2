package rego

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

const (
	maxPattern        = 256    // octets of a domain pattern
	maxPrefix         = 20     // digits of a number prefix
	maxExpressionSize = 500    // instructions of a compiled expression
	maxExpressionSum  = 20_000 // of all together: trying them on the longest domain takes 50 ms at worst
)

// anyNumber are the prefixes of who says nothing of them.
var anyNumber = []string{""}

// patternKind is the kind of a domain pattern, in the order of precedence.
type patternKind uint8

const (
	exactPattern      patternKind = iota // sip.example.com
	suffixPattern                        // *.example.com: below it, and not example.com
	expressionPattern                    // /sip[0-9]+\.example\.com/: the whole domain
	anyPattern                           // *: also recipients without a domain
)

// String says what it is in a sentence: "… matches".
func (k patternKind) String() string {
	return [...]string{"an exact domain", "a suffix", "an expression", "any domain"}[k]
}

// domainPattern is a domain, or what stands for many.
type domainPattern struct {
	kind       patternKind
	text       string // in lower case unless it is an expression
	expression *domainExpression
}

// length is what the longest suffix is told by.
func (p domainPattern) length() int {
	if p.kind == suffixPattern {
		return len(p.text)
	}
	return 0
}

// matches tells whether an expression does. plain says that isPlain(domain).
func (p domainPattern) matches(domain string, plain bool) bool {
	e := p.expression
	return (!plain || e.literals.in(domain)) && e.regexp.MatchString(domain)
}

// covers tells whether a pattern of any kind matches a domain.
func (p domainPattern) covers(domain string) bool {
	switch p.kind {
	case exactPattern:
		return domain == p.text
	case suffixPattern:
		return strings.HasSuffix(domain, p.text[1:])
	case expressionPattern:
		return domain != "" && p.expression.regexp.MatchString(domain)
	}
	return true
}

const expectedDomain = `"sip.example.com", "*.example.com", "*" or an expression such as "/sip[0-9]+\\.example\\.com/"`

func parseDomain(text string) (domainPattern, error) {
	lower := strings.ToLower(text)
	suffix, isSuffix := strings.CutPrefix(lower, "*.")
	switch {
	case len(text) > maxPattern:
		return domainPattern{}, fmt.Errorf("expected at most %d octets, got %d", maxPattern, len(text))
	case text == "*":
		return domainPattern{kind: anyPattern, text: text}, nil
	case len(text) > 2 && text[0] == '/' && text[len(text)-1] == '/':
		return parseExpression(text)
	case isSuffix && isDomain(suffix):
		return domainPattern{kind: suffixPattern, text: lower}, nil
	case isDomain(lower):
		return domainPattern{kind: exactPattern, text: lower}, nil
	}
	return domainPattern{}, fmt.Errorf("expected %s, got %q", expectedDomain, short(text))
}

// isDomain tells whether s can be the host of an address: a name or an IP
// address. It is in lower case.
func isDomain(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") == "" && s[0] != '.'
}

func parsePrefix(text string) (string, error) {
	if prefix := digits(text); prefix != "" && len(prefix) <= maxPrefix {
		return prefix, nil
	}
	return "", fmt.Errorf("expected 1 to %d digits such as \"4420\", got %q", maxPrefix, short(text))
}

// digits returns a telephone number without its "+", "" if s isn't one.
func digits(s string) string {
	s = strings.TrimPrefix(s, "+")
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return ""
		}
	}
	return s
}

// domainExpression is a regular expression over the whole domain.
type domainExpression struct {
	regexp   *regexp.Regexp
	literals literals
	size     int // instructions: what trying it may cost
}

func parseExpression(text string) (domainPattern, error) {
	inner := text[1 : len(text)-1]
	re, err := regexp.Compile(`(?i)^(?:` + inner + `)$`)
	if err != nil {
		return domainPattern{}, unexpectedExpression(text, err)
	}
	tree, err := syntax.Parse(`(?i:`+inner+`)`, syntax.Perl)
	if err != nil {
		return domainPattern{}, unexpectedExpression(text, err)
	}
	e := &domainExpression{regexp: re, literals: literalsOf(tree)}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return domainPattern{}, unexpectedExpression(text, err)
	}
	if e.size = len(program.Inst); e.size > maxExpressionSize {
		return domainPattern{}, fmt.Errorf("expected a simpler expression: %q takes %d instructions, and may take %d", short(text), e.size, maxExpressionSize)
	}
	return domainPattern{kind: expressionPattern, text: text, expression: e}, nil
}

func unexpectedExpression(text string, err error) error {
	return fmt.Errorf("expected a regular expression between slashes, got %q: %w", short(text), err)
}

// literals are what a domain must begin with, end with and hold for an
// expression to match it. Looking for them costs a twentieth of the expression,
// and most expressions of a table have some that tell them from the others.
type literals struct {
	prefix, suffix, inside string
	whole                  bool // nothing else matches but this text
}

func (l literals) in(domain string) bool {
	return strings.HasSuffix(domain, l.suffix) && strings.HasPrefix(domain, l.prefix) && strings.Contains(domain, l.inside)
}

// isPlain tells whether a domain is as domains are: ASCII in lower case. Beyond
// that, folding has cases in which two texts of different length are equal.
func isPlain(domain string) bool {
	for i := range len(domain) {
		if domain[i] >= utf8.RuneSelf || 'A' <= domain[i] && domain[i] <= 'Z' {
			return false
		}
	}
	return true
}

func literalsOf(re *syntax.Regexp) literals {
	switch re.Op {
	case syntax.OpLiteral:
		text := strings.ToLower(string(re.Rune))
		return literals{prefix: text, suffix: text, inside: text, whole: true}
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return literals{whole: true}
	case syntax.OpCapture:
		return literalsOf(re.Sub[0])
	case syntax.OpPlus:
		return repeated(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return repeated(re.Sub[0])
		}
	case syntax.OpConcat:
		return concatenated(re.Sub)
	}
	return literals{}
}

// repeated is there at least once.
func repeated(re *syntax.Regexp) literals {
	l := literalsOf(re)
	l.whole = false
	return l
}

// concatenated joins what stands side by side.
func concatenated(parts []*syntax.Regexp) literals {
	all := literals{whole: true}
	for _, part := range parts {
		l := literalsOf(part)
		if all.whole {
			all.prefix += l.prefix
		}
		joined := all.suffix + l.prefix
		all.inside = longest(all.inside, l.inside, joined)
		if l.whole {
			all.suffix = joined
		} else {
			all.suffix = l.suffix
		}
		all.whole = all.whole && l.whole
	}
	return all
}

func longest(texts ...string) (found string) {
	for _, text := range texts {
		if len(text) > len(found) {
			found = text
		}
	}
	return found
}

// short cuts a text that somebody may have written by mistake.
func short(text string) string {
	if len(text) > maxName {
		return strings.ToValidUTF8(text[:maxName], "") + "…"
	}
	return text
}
