package sip

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Limits of a contact, in octets.
const (
	maxContact = 1024
	maxDevice  = 256
)

// register changes or tells the bindings of an address-of-record. A trusted peer
// may bring the request; whose it is, the credentials say.
func (d *Door) register(ctx context.Context, x *wire.Exchange, o *origin) {
	now := time.Now()
	digest, found := d.credentials(x)
	who, ok := d.authenticate(ctx, x, o, digest, found, now)
	if !ok || !d.begin(x) {
		return
	}
	path, refusal := pathOf(x, o.peer)
	if refusal != nil {
		d.answer(x, *refusal)
		return
	}
	r, refusal := d.registration(x, who.account, path, now)
	if refusal != nil {
		d.answer(x, *refusal)
		return
	}
	d.waiters.run(func() {
		defer x.Recover()
		d.answerRegistration(ctx, x, r, path)
	})
}

func (d *Door) answerRegistration(ctx context.Context, x *wire.Exchange, r plugin.Registration, path string) {
	bindings, err := d.gate.Register(d.accepting.Context(time.Now()), r)
	if ctx.Err() != nil && err != nil {
		x.Abandon()
		return
	}
	if err != nil {
		d.refuse(x, message.AsFailure(err))
		return
	}
	now := time.Now()
	d.remember(x, r, path, now)
	headers := registered(d.withoutDead(bindings), now)
	if path != "" && supports(x, "path") {
		headers = append(headers, wire.Header{Name: "Path", Value: path})
	}
	headers = append(headers, outbound(x, r, path)...)
	if len(d.config.PushProviders) > 0 && slices.ContainsFunc(r.Bindings, asksForPush) {
		headers = append(headers, d.pushCapabilities()...)
	}
	d.answer(x, wire.Reply{Status: 200, Headers: headers})
}

// withoutDead leaves out bindings over connections that are gone, but those of
// apps that can be woken, and has the gate told: nobody is reached over such a
// connection any more, since we never dial a client. They are of a time when this
// door, or this node, wasn't the one that would have noticed.
func (d *Door) withoutDead(bindings []plugin.Binding) []plugin.Binding {
	return slices.DeleteFunc(slices.Clone(bindings), func(b plugin.Binding) bool {
		w, err := parseWay(b.Flow)
		if err != nil || b.Asleep || b.Transport != d.instance || w.route != "" || w.flow.ID == "" || d.endpoint.Load().Connected(w.flow) {
			return false
		}
		d.lost(b.Flow)
		return b.Push == plugin.Push{}
	})
}

// remember keeps the connection on which a device has registered, for as long
// as it lasts. The one that it replaces is closed (RFC 5626 §6): the device has
// most often forgotten it.
func (d *Door) remember(x *wire.Exchange, r plugin.Registration, path string, now time.Time) {
	for _, replaced := range d.streams.note(r, way{x.Flow, path}, now) {
		d.endpoint.Load().Dismiss(replaced) // if something is under way there it ends by itself, later
	}
	if x.Flow.ID == "" {
		return
	}
	if slices.ContainsFunc(r.Bindings, func(b plugin.Binding) bool { return b.Expires.After(now) }) {
		x.Keep()
		if d.peerOf(x) == nil {
			d.streams.noteClient(x.Flow)
		}
	}
	if !d.endpoint.Load().Connected(x.Flow) { // it ended before it was noted
		d.ended(x.Flow)
	}
}

// supports tells whether a request names an extension in Supported.
func supports(x *wire.Exchange, extension string) bool {
	extensions, _ := wire.List(x.All("Supported"))
	return slices.ContainsFunc(extensions, func(e string) bool { return strings.EqualFold(e, extension) })
}

// registered are the header fields of the 200: all bindings that there are now
// (RFC 3261 §10.3, step 8).
func registered(bindings []plugin.Binding, now time.Time) []wire.Header {
	headers := make([]wire.Header, 0, len(bindings)+1)
	for _, b := range bindings {
		if b.Expires.After(now) {
			headers = append(headers, wire.Header{Name: "Contact", Value: contactValue(b, now)})
		}
	}
	return append(headers, wire.Header{Name: "Date", Value: now.UTC().Format(http.TimeFormat)})
}

func contactValue(b plugin.Binding, now time.Time) string {
	left := int64(b.Expires.Sub(now)+time.Second-1) / int64(time.Second)
	value := "<" + b.Contact + ">;expires=" + strconv.FormatInt(left, 10)
	if b.Q < 1000 {
		value += ";q=0." + strconv.Itoa(1000 + b.Q)[1:]
	}
	if b.Device != "" {
		value += ";+sip.instance=" + wire.Quote(b.Device)
	}
	if b.RegID != "" {
		value += ";reg-id=" + b.RegID
	}
	return value
}

// registration reads what a REGISTER asks for (RFC 3261 §10.3, steps 5 to 7).
func (d *Door) registration(x *wire.Exchange, account plugin.Account, path string, now time.Time) (plugin.Registration, *wire.Reply) {
	r := plugin.Registration{Account: account, CallID: x.CallID, CSeq: x.CSeq}
	if !d.names.include(x.URI) {
		return r, &wire.Reply{Status: 404, Phrase: "Not Our Domain"}
	}
	u, err := wire.ParseURI(x.To.URI)
	if err != nil || u.User == "" {
		return r, bad("Bad Address-Of-Record")
	}
	if r.AOR, err = wire.Address(u); err != nil {
		return r, bad("Bad Address-Of-Record")
	}
	if !d.names.hasDomain(r.AOR.Host) {
		return r, &wire.Reply{Status: 404}
	}
	contacts, ok := wire.List(x.All("Contact"))
	if !ok {
		return r, bad("Bad Contact")
	}
	if len(contacts) > d.config.Limits.Contacts {
		d.metrics.refused[message.LimitReached].Inc()
		d.metrics.contacts.Add(1)
		return r, &wire.Reply{Status: 403, Phrase: "Too Many Contacts"}
	}
	if slices.Contains(contacts, "*") {
		seconds, found, ok := x.Expires()
		r.All = true
		if !ok || !found || seconds != 0 || len(contacts) != 1 {
			return r, bad("Bad Wildcard Contact")
		}
		return r, nil
	}
	for _, contact := range contacts {
		b, refusal := d.binding(x, contact, path, now)
		if refusal != nil {
			return r, refusal
		}
		b.Account, b.AOR = account.ID, r.AOR
		r.Bindings = append(r.Bindings, b)
	}
	return r, nil
}

func bad(phrase string) *wire.Reply { return &wire.Reply{Status: 400, Phrase: phrase} }

// binding reads one contact.
func (d *Door) binding(x *wire.Exchange, contact, path string, now time.Time) (plugin.Binding, *wire.Reply) {
	b := plugin.Binding{Transport: d.instance, CallID: x.CallID, CSeq: x.CSeq, Q: 1000}
	a, ok := wire.ParseNameAddr(contact)
	if !ok || len(a.URI) > maxContact {
		return b, bad("Bad Contact")
	}
	uri, err := wire.ParseURI(a.URI)
	if err != nil {
		return b, bad("Bad Contact")
	}
	if wire.IsSecure(uri) && !x.Flow.IsSecure() {
		return b, bad("SIPS Contact Needs TLS") // it couldn't be reached over this flow
	}
	b.Contact, b.Flow = a.URI, wayBack(x, uri, path).String()
	if q, found := a.Params.Get("q"); found {
		if b.Q, ok = parseQ(q); !ok {
			return b, bad("Bad Contact")
		}
	}
	if b.Device, b.RegID, ok = device(a.Params); !ok {
		return b, bad("Bad Instance")
	}
	lifetime, err := d.lifetime(x, a.Params)
	if err != nil {
		minimum := strconv.Itoa(int(d.config.Registration.Min / time.Second))
		return b, &wire.Reply{Status: 423, Headers: []wire.Header{{Name: "Min-Expires", Value: minimum}}}
	}
	b.Expires = now.Add(lifetime)
	if lifetime == 0 {
		return b, nil // how its app was woken is no matter
	}
	var refusal *wire.Reply
	b.Push, refusal = d.pushOf(uri)
	return b, refusal
}

// wayBack is how to reach a contact: on the flow on which the request came, and
// through the proxies that it came through. Behind a NAT nothing else works, and
// nobody can make us send to a third party. Only a client over UDP that isn't
// behind one, since its Via names the address that the request came from, may
// name another port of its own address.
func wayBack(x *wire.Exchange, contact sip.Uri, path string) way {
	w := way{x.Flow, path}
	port := uint16(contact.Port)
	if port == 0 {
		port = defaultPort
	}
	knowsItself := x.Via.Host == w.flow.Remote.Addr().Unmap().String() && x.Via.Port == w.flow.Remote.Port()
	host, err := netip.ParseAddr(strings.Trim(contact.Host, "[]"))
	if err != nil || w.flow.ID != "" || path != "" || !knowsItself || host.Unmap() != w.flow.Remote.Addr().Unmap() {
		return w
	}
	w.flow.Remote = netip.AddrPortFrom(w.flow.Remote.Addr(), port)
	return w
}

var errTooBrief = errors.New("interval too brief")

// lifetime is how long a binding is to last: the contact's expires, else the
// Expires header field, else our default (RFC 3261 §10.3, step 7). A value that
// can't be read counts as not given (§20.19). errTooBrief: under our minimum.
func (d *Door) lifetime(x *wire.Exchange, params wire.Params) (time.Duration, error) {
	limits := d.config.Registration
	lifetime := limits.Default
	if seconds, found, ok := x.Expires(); found && ok {
		lifetime = time.Duration(seconds) * time.Second
	}
	if value, found := params.Get("expires"); found {
		lifetime = limits.Default
		if seconds, ok := wire.Number(value, 1<<32-1); ok {
			lifetime = time.Duration(seconds) * time.Second
		}
	}
	if lifetime > 0 && lifetime < limits.Min {
		return 0, errTooBrief
	}
	return min(lifetime, limits.Max), nil
}

// parseQ reads a preference of RFC 3261 §25.1, "0.5", in thousandths.
func parseQ(s string) (int, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if whole != "0" && whole != "1" || len(fraction) > 3 {
		return 0, false
	}
	n, ok := wire.Number(whole+(fraction + "000")[:3], 1000)
	return int(n), ok
}

// device names the device of a contact: its +sip.instance, and the reg-id if it
// registers several flows (RFC 5626 §4.2). Empty: it doesn't say.
func device(params wire.Params) (instance, reg string, ok bool) {
	instance, found := params.Get("+sip.instance")
	if !found {
		return "", "", true
	}
	if instance == "" || len(instance) > maxDevice || !utf8.ValidString(instance) {
		return "", "", false
	}
	reg, found = params.Get("reg-id")
	if !found {
		return instance, "", true
	}
	n, ok := wire.Number(reg, 1<<31-1)
	return instance, reg, ok && n > 0
}
