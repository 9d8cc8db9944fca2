package sip

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// The parameters of a contact by which its app can be woken (RFC 8599 §8), and
// how many octets each may have, unescaped.
const (
	pnProvider = "pn-provider"
	pnParam    = "pn-param"
	pnID       = "pn-prid"

	maxPushProvider = 32
	maxPushParam    = 256
	maxPushID       = 512
)

func (c Config) checkPush(p *problems) {
	for i, provider := range c.PushProviders {
		known := wire.IsToken(provider) && len(provider) <= maxPushProvider
		p.expect(known && !slices.Contains(c.PushProviders[:i], provider), fmt.Sprintf("push_providers[%d]", i), "a word such as apns or fcm, each once")
	}
}

// pushOf reads how the app behind a contact can be woken: zero if it can't, or
// only asks who can be (RFC 8599 §4.1.2: pn-provider without pn-prid). Where no
// provider is configured nobody looks at what a contact says.
func (d *Door) pushOf(contact sip.Uri) (plugin.Push, *wire.Reply) {
	providers := d.config.PushProviders
	if len(providers) == 0 {
		return plugin.Push{}, nil
	}
	provider, found, ok := uriParam(contact, pnProvider, maxPushProvider)
	param, _, okParam := uriParam(contact, pnParam, maxPushParam)
	id, _, okID := uriParam(contact, pnID, maxPushID)
	if !ok || !okParam || !okID || !found && id != "" {
		return plugin.Push{}, bad("Bad Push Parameters")
	}
	if provider == "" {
		return plugin.Push{}, nil
	}
	if !slices.ContainsFunc(providers, func(p string) bool { return strings.EqualFold(p, provider) }) {
		return plugin.Push{}, &wire.Reply{Status: 555, Phrase: "Push Notification Service Not Supported", Headers: d.pushCapabilities()}
	}
	if id == "" {
		return plugin.Push{}, nil
	}
	return plugin.Push{Provider: strings.ToLower(provider), Param: param, ID: id}, nil
}

// pushCapabilities tells whose apps can be woken (RFC 8599 §8.3).
func (d *Door) pushCapabilities() []wire.Header {
	values := make([]string, len(d.config.PushProviders))
	for i, provider := range d.config.PushProviders {
		values[i] = `*;+sip.pns="` + provider + `"`
	}
	return []wire.Header{{Name: "Feature-Caps", Value: strings.Join(values, ", ")}}
}

// asksForPush tells whether a contact that was accepted says how its app can be
// woken, or asks whether it can.
func asksForPush(b plugin.Binding) bool {
	u, err := wire.ParseURI(b.Contact)
	return err == nil && slices.ContainsFunc(u.UriParams, func(kv sip.HeaderKV) bool { return strings.EqualFold(kv.K, pnProvider) })
}

// uriParam returns a parameter of a URI, unescaped. It isn't ok if it is there
// twice, is too long, or is no text.
func uriParam(u sip.Uri, name string, most int) (value string, found, ok bool) {
	for _, kv := range u.UriParams {
		if !strings.EqualFold(kv.K, name) {
			continue
		}
		text, err := url.PathUnescape(kv.V)
		if found || err != nil || len(text) > most || !isPlainText(text) {
			return "", true, false
		}
		value, found = text, true
	}
	return value, found, true
}

func isPlainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
