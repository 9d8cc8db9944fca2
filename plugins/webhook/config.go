package webhook

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Config says which push server is asked, and how it knows us.
type Config struct {
	URL     string            `yaml:"url" doc:"where the push server takes requests, such as \"https://push.example.com/wake\"; one POST with a JSON object for each app that is to be woken"`
	Secret  string            `yaml:"secret" doc:"signs each request in its header field X-IMGate-Signature (HMAC-SHA256), 16 octets or more; without one the server can't know who asks"`
	Header  map[string]string `yaml:"header" doc:"further header fields of each request, as the server wants them, such as Authorization"`
	Timeout time.Duration     `yaml:"timeout" doc:"how long one request may take, 100ms to 30s"`
	Keep    time.Duration     `yaml:"keep" doc:"how long after its expiry the contact of an app that can be woken is kept, 1m to 2160h"`
	CA      string            `yaml:"ca" doc:"file with the certificates, in PEM, of those who may vouch for the server; default: those of the system"`
}

// The limits of what is configured.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = 30 * time.Second
	minKeep    = time.Minute
	minSecret  = 16 // octets
)

// Validate refuses what can't be called, or would be no secret.
func (c Config) Validate() error {
	var errs []error
	wrong := func(key, expected string) {
		errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
	}
	if !isURL(c.URL) {
		wrong("url", `a URL such as "https://push.example.com/wake", without a user and a password`)
	}
	if c.Secret != "" && len(c.Secret) < minSecret {
		wrong("secret", fmt.Sprintf("%d octets or more", minSecret))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Header)) {
		switch {
		case !isToken(name) || isOurs(name):
			wrong("header."+name, "another name: this is no header field, or one that the request has anyway")
		case !isFieldValue(c.Header[name]):
			wrong("header."+name, "a text of printable characters in one line")
		}
	}
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		wrong("timeout", fmt.Sprintf("%v to %v", minTimeout, maxTimeout))
	}
	if c.Keep < minKeep || c.Keep > plugin.MaxKeep {
		wrong("keep", fmt.Sprintf("%s to %s", plugin.DurationText(minKeep), plugin.DurationText(plugin.MaxKeep)))
	}
	return errors.Join(errs...)
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.Fragment == ""
}

// isOurs tells whether a header field is written by us, or by HTTP itself.
func isOurs(name string) bool {
	return slices.ContainsFunc([]string{
		SignatureHeader, "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Host", "Trailer", "Upgrade", "Te",
	}, func(ours string) bool { return strings.EqualFold(ours, name) })
}

// isToken is RFC 9110 §5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// isFieldValue is RFC 9110 §5.5, in ASCII.
func isFieldValue(s string) bool {
	return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' })
}
