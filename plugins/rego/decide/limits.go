package decide

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/imgate/imgate/engine/plugin"
)

const (
	maxLimitKey   = 1024 // octets
	maxLimitPaths = 8    // of one key
	maxLimitCount = 1_000_000_000
)

// limitName is what a limit may be called; policies read it as a word.
var limitName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// limit is a rate limit that a service declares.
type limit struct {
	plugin.Limit // but for its key
	key          []func(*matter) string
	read         bool // by the service's plan
}

// keyPaths are the paths of the question, and of the row that matched, that
// messages may be counted by. Those of keyTables have a name behind them.
var (
	keyPaths = map[string]func(*matter) string{
		"message.type":      func(m *matter) string { return m.Message.Type },
		"message.class":     func(m *matter) string { return m.Message.Class },
		"sender.account":    func(m *matter) string { return m.Sender.Account },
		"sender.address":    func(m *matter) string { return m.Sender.Address },
		"sender.user":       func(m *matter) string { return m.Sender.User },
		"sender.domain":     func(m *matter) string { return m.Sender.Domain },
		"sender.number":     func(m *matter) string { return m.Sender.Number },
		"recipient.address": func(m *matter) string { return m.Recipient.Address },
		"recipient.user":    func(m *matter) string { return m.Recipient.User },
		"recipient.domain":  func(m *matter) string { return m.Recipient.Domain },
		"recipient.account": func(m *matter) string { return m.Recipient.Account },
		"transport":         func(m *matter) string { return m.Transport },
		"protocol":          func(m *matter) string { return m.Protocol },
		"peer":              func(m *matter) string { return m.Peer },
		"match.domain":      func(m *matter) string { return m.claim.Domain.Text },
		"match.prefix":      func(m *matter) string { return m.claim.Prefix },
	}
	keyTables = map[string]func(m *matter, name string) string{
		"sender.attributes":    func(m *matter, name string) string { return m.Sender.Attributes[name] },
		"recipient.attributes": func(m *matter, name string) string { return m.Recipient.Attributes[name] },
		"match.attributes":     rowAttribute,
	}
)

// rowAttribute returns a row's attribute as text, empty if there is none.
func rowAttribute(m *matter, name string) string {
	term := m.claim.Attributes.Get(ast.StringTerm(name))
	if term == nil {
		return ""
	}
	if s, ok := term.Value.(ast.String); ok {
		return string(s)
	}
	return term.Value.String()
}

// limitAttributes are those of a limit in the document limits.
var limitAttributes = attributes[limit]{
	"key":   valueOf(func(l *limit) *[]func(*matter) string { return &l.key }, limitKey),
	"count": valueOf(func(l *limit) *int { return &l.Count }, integer(0, maxLimitCount)),
	"per":   valueOf(func(l *limit) *time.Duration { return &l.Per }, duration(plugin.MinWindow, plugin.MaxWindow)),
}

// limitKey reads one path, or a list of them. None: all the service's messages
// are counted together.
func limitKey(v ast.Value) ([]func(*matter) string, error) {
	if _, ok := v.(ast.String); ok {
		read, err := keyPath(v)
		return []func(*matter) string{read}, err
	}
	return list(maxLimitPaths, `["sender.account"]`, keyPath)(v)
}

func keyPath(v ast.Value) (func(*matter) string, error) {
	path, ok := v.(ast.String)
	if !ok {
		return nil, unexpectedPath(v)
	}
	if read := keyPaths[string(path)]; read != nil {
		return read, nil
	}
	for _, table := range slices.Sorted(maps.Keys(keyTables)) {
		if name, ok := strings.CutPrefix(string(path), table+"."); ok && name != "" {
			read := keyTables[table]
			return func(m *matter) string { return read(m, name) }, nil
		}
	}
	return nil, unexpectedPath(v)
}

func unexpectedPath(v ast.Value) error {
	choices := slices.Sorted(maps.Keys(keyPaths))
	for _, table := range slices.Sorted(maps.Keys(keyTables)) {
		choices = append(choices, table+".NAME")
	}
	slices.Sort(choices)
	return unexpected("a path of the input, one of "+words(choices), v)
}

// decodeLimits reads the document limits of a service, in the order of the
// names.
func decodeLimits(service string, v ast.Value) ([]limit, error) {
	object, ok := v.(ast.Object)
	if !ok || object.Len() > plugin.MaxLimits {
		return nil, unexpected(fmt.Sprintf(`an object of at most %d limits such as {"per_sender": {"key": "sender.account", "count": 10, "per": "1m"}}`, plugin.MaxLimits), v)
	}
	var limits []limit
	err := eachEntry(object, func(name string, v ast.Value) error {
		if !limitName.MatchString(name) {
			return errors.New("expected a word as the name of a limit: a letter, then letters, digits and _, at most 64")
		}
		var l limit
		if err := limitAttributes.decode(v, &l); err != nil {
			return err
		}
		if l.Per == 0 {
			return at("per", errors.New(`expected how long a window is, such as "1m"`))
		}
		l.Name, l.Key = name, service+"/"+name
		limits = append(limits, l)
		return nil
	})
	slices.SortFunc(limits, func(a, b limit) int { return strings.Compare(a.Name, b.Name) })
	return limits, err
}

// of returns the limit for a message.
func (l *limit) of(m *matter) plugin.Limit {
	found := l.Limit
	if len(l.key) == 0 {
		return found
	}
	var values strings.Builder
	for _, read := range l.key {
		values.WriteByte('/')
		values.WriteString(url.PathEscape(read(m)))
	}
	found.Key = boundedKey(l.Key, values.String())
	return found
}

// boundedKey returns the key, or a digest of it if it is too long. No escaped
// value begins with "#".
func boundedKey(name, values string) string {
	if len(name)+len(values) <= maxLimitKey {
		return name + values
	}
	digest := sha256.Sum256([]byte(values))
	return name + "/#" + hex.EncodeToString(digest[:])
}
