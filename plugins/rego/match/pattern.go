package match

import (
	"cmp"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

const (
	maxPattern        = 256    // octets of a domain pattern
	MaxPrefix         = 20     // digits of a number prefix
	maxExpressionSize = 500    // instructions of a compiled expression
	maxExpressionSum  = 20_000 // of all together: trying them on the longest domain takes 50 ms at worst
)

// AnyNumber are the prefixes of who says nothing of them.
var AnyNumber = []string{""}

// PatternKind is the kind of a domain pattern, in the order of precedence.
type PatternKind uint8

const (
	exactPattern      PatternKind = iota // sip.example.com; "": recipients without a domain alone
	suffixPattern                        // *.example.com: below it, and not example.com
	expressionPattern                    // /sip[0-9]+\.example\.com/: the whole domain
	AnyPattern                           // *: also recipients without a domain
)

// String says what it is in a sentence: "… matches".
func (k PatternKind) String() string {
	return [...]string{"an exact domain", "a suffix", "an expression", "any domain"}[k]
}

// DomainPattern is a domain, or what stands for many.
type DomainPattern struct {
	Kind       PatternKind
	Text       string // in lower case unless it is an expression
	expression *domainExpression
}

// String is the pattern as errors show it.
func (p DomainPattern) String() string { return cmp.Or(p.Text, `""`) }

// length is what the longest suffix is told by.
func (p DomainPattern) length() int {
	if p.Kind == suffixPattern {
		return len(p.Text)
	}
	return 0
}

// matches tells whether an expression does. plain says that isPlain(domain).
func (p DomainPattern) matches(domain string, plain bool) bool {
	e := p.expression
	return (!plain || e.literals.in(domain)) && e.regexp.MatchString(domain)
}

// covers tells whether a pattern of any kind matches a domain.
func (p DomainPattern) covers(domain string) bool {
	switch p.Kind {
	case exactPattern:
		return domain == p.Text
	case suffixPattern:
		return strings.HasSuffix(domain, p.Text[1:])
	case expressionPattern:
		return domain != "" && p.expression.regexp.MatchString(domain)
	}
	return true
}

const expectedDomain = `"sip.example.com", "*.example.com", "*", "" or an expression such as "/sip[0-9]+\\.example\\.com/"`

// ParseDomain reads a domain as a match and a row have it. An error says what was
// expected.
func ParseDomain(text string) (DomainPattern, error) {
	lower := strings.ToLower(text)
	suffix, isSuffix := strings.CutPrefix(lower, "*.")
	switch {
	case len(text) > maxPattern:
		return DomainPattern{}, fmt.Errorf("expected at most %d octets, got %d", maxPattern, len(text))
	case text == "":
		return DomainPattern{Kind: exactPattern}, nil
	case text == "*":
		return DomainPattern{Kind: AnyPattern, Text: text}, nil
	case len(text) > 2 && text[0] == '/' && text[len(text)-1] == '/':
		return parseExpression(text)
	case isSuffix && IsDomain(suffix):
		return DomainPattern{Kind: suffixPattern, Text: lower}, nil
	case IsDomain(lower):
		return DomainPattern{Kind: exactPattern, Text: lower}, nil
	}
	return DomainPattern{}, fmt.Errorf("expected %s, got %q", expectedDomain, short(text))
}

// IsDomain tells whether s can be the host of an address: a name, of which no
// part is empty, or an IP address. It is in lower case.
func IsDomain(s string) bool {
	isEmpty := s == "" || s[0] == '.' || strings.Contains(s, "..")
	return !isEmpty && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") == ""
}

// ParsePrefix reads what a number begins with: up to MaxPrefix digits, without the
// "+" that may stand before them.
func ParsePrefix(text string) (string, error) {
	if prefix := digits(text); prefix != "" && len(prefix) <= MaxPrefix {
		return prefix, nil
	}
	return "", fmt.Errorf("expected 1 to %d digits such as \"4420\", got %q", MaxPrefix, short(text))
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

func parseExpression(text string) (DomainPattern, error) {
	inner := text[1 : len(text)-1]
	re, err := regexp.Compile(`(?i)^(?:` + inner + `)$`)
	if err != nil {
		return DomainPattern{}, unexpectedExpression(text, err)
	}
	tree, err := syntax.Parse(`(?i:`+inner+`)`, syntax.Perl)
	if err != nil {
		return DomainPattern{}, unexpectedExpression(text, err)
	}
	e := &domainExpression{regexp: re, literals: literalsOf(tree)}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return DomainPattern{}, unexpectedExpression(text, err)
	}
	if e.size = len(program.Inst); e.size > maxExpressionSize {
		return DomainPattern{}, fmt.Errorf("expected a simpler expression: %q takes %d instructions, and may take %d", short(text), e.size, maxExpressionSize)
	}
	return DomainPattern{Kind: expressionPattern, Text: text, expression: e}, nil
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

const maxShort = 64 // octets

// short cuts a text that somebody may have written by mistake.

func short(text string) string {
	if len(text) > maxShort {
		return strings.ToValidUTF8(text[:maxShort], "") + "…"
	}
	return text
}
