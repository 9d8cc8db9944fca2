package ua

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Words says to a person what a final response to a MESSAGE means, ready for a
// terminal.
func (r Result) Words() string {
	switch {
	case r.Code == 200:
		return "delivered: the recipient's device has it"
	case r.Code == 202:
		return "accepted: on its way, or kept until the recipient comes online"
	case r.Code/100 == 2:
		return fmt.Sprintf("accepted (%d %s)", r.Code, Printable(r.Reason))
	}
	words := fmt.Sprintf("refused (%d %s): %s", r.Code, Printable(r.Reason), meaning(r.Code))
	if r.Accept != "" {
		words += "; allowed: " + Printable(r.Accept)
	}
	if r.RetryAfter > 0 {
		words += "; try again in " + r.RetryAfter.String()
	}
	return words
}

// Taken tells whether the message is now somebody else's responsibility.
func (r Result) Taken() bool { return r.Code/100 == 2 }

// meanings are those of the codes that the gateway answers with.
var meanings = map[int]string{
	400: "the request breaks the rules of SIP",
	401: "there is no such account, or the password is wrong or missing",
	402: "the account's balance is too low",
	403: "not allowed: the account is suspended, the address isn't one of its own, or a rule of the operator forbids it",
	404: "nobody has this address",
	405: "the server doesn't take such requests",
	407: "there is no such account, or the password is wrong or missing",
	408: "the recipient's device doesn't answer",
	410: "the recipient has left for good",
	413: "the message is too large",
	415: "messages of this type aren't allowed",
	416: "the server doesn't take addresses of this kind",
	420: "the server lacks an extension that the request needs",
	423: "the time asked for is too short",
	480: "the recipient can't be reached now, and the message isn't kept",
	481: "the recipient's device doesn't know this conversation",
	482: "the message went in a circle",
	483: "the message took too many hops, by all appearances in a circle",
	486: "the recipient is busy",
	488: "the recipient's device can't take this message",
	500: "the server can't decide now, or too much was asked of it: wrong passwords, or too many requests",
	501: "the server doesn't know such requests",
	502: "the next hop refused",
	503: "this server doesn't take traffic now; another one may",
	504: "the next hop doesn't answer",
	513: "the message is too large",
	600: "the recipient is busy everywhere",
	603: "the recipient doesn't want it",
	604: "nobody has this address anywhere",
	606: "the recipient's device can't take this message",
}

func meaning(code int) string {
	if words, ok := meanings[code]; ok {
		return words
	}
	switch code / 100 {
	case 3:
		return "the recipient is to be reached elsewhere"
	case 4:
		return "the request can't be fulfilled"
	case 5:
		return "the server failed"
	}
	return "the recipient can't be reached anywhere"
}

// Printable makes text harmless for a terminal: what isn't a visible character
// or a space - control characters, escape sequences, characters that change
// the direction of writing, broken UTF-8 - is shown as an escape of Go.
func Printable(text string) string {
	if isPrintable(text) {
		return text
	}
	var w strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&w, `\x%02x`, text[i])
		case harmless(r):
			w.WriteRune(r)
		default:
			w.WriteString(escaped(r))
		}
		i += size
	}
	return w.String()
}

func isPrintable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !harmless(r) }) < 0
}

// harmless also lets the joiner through that holds many emoji together.
func harmless(r rune) bool { return unicode.IsPrint(r) || r == '\u200d' }

func escaped(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case r < 0x80:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// printableJSON does for a JSON document what Printable does for text: the
// document stays the same.
func printableJSON(document []byte) []byte {
	if isPrintable(string(document)) {
		return document
	}
	var out []byte
	for _, r := range string(document) {
		switch {
		case harmless(r):
			out = utf8.AppendRune(out, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

// clock writes when a message was sent, if that is known and not of another day.
func clock(sent, now time.Time) string {
	if sent.IsZero() {
		sent = now
	}
	sent = sent.In(now.Location())
	if sent.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return sent.Format(time.TimeOnly)
	}
	return sent.Format(time.DateTime)
}
