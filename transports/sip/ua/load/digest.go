package load

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/icholy/digest"
)

// login answers an account's challenges (RFC 7616, RFC 8760). Between two
// challenges it costs two hashes and no memory.
type login struct {
	username, password string

	known  bool   // whether there was a challenge
	line   []byte // what stays the same until the next challenge: up to "uri="
	nonce  []byte
	ha1    []byte
	sha256 bool
	auth   bool // qop=auth
	count  uint32
}

// cnonce needn't be a secret: it protects the client from chosen plain text,
// and this one has nothing to protect.
const cnonce = "9a7f3c51"

var errNoChallenge = errors.New("the server asks for credentials of a kind that isn't supported: expected Digest with MD5 or SHA-256")

// challenged takes the first of a response's challenges that it can answer.
func (l *login) challenged(d *datagram) error {
	for _, value := range d.challenges {
		c, err := digest.ParseChallenge(string(value))
		if err == nil && l.use(c, d.code) {
			return nil
		}
	}
	return errNoChallenge
}

func (l *login) use(c *digest.Challenge, code int) bool {
	algorithm := strings.ToUpper(c.Algorithm)
	if algorithm != "" && algorithm != "MD5" && algorithm != "SHA-256" {
		return false
	}
	auth := false
	for _, qop := range c.QOP {
		auth = auth || strings.TrimSpace(qop) == "auth"
	}
	if len(c.QOP) > 0 && !auth || strings.ContainsAny(c.Realm+c.Nonce+c.Opaque, "\r\n\x00") {
		return false
	}
	l.known, l.auth, l.sha256, l.count = true, auth, algorithm == "SHA-256", 0
	l.nonce = []byte(c.Nonce)
	l.ha1 = l.appendHash(nil, []byte(l.username+":"+c.Realm+":"+l.password))
	l.line = l.fixedPart(c, code)
	return true
}

func (l *login) fixedPart(c *digest.Challenge, code int) []byte {
	header := "Authorization"
	if code == 407 {
		header = "Proxy-Authorization"
	}
	line := header + ": Digest username=" + quoted(l.username) + ", realm=" + quoted(c.Realm) + ", nonce=" + quoted(c.Nonce)
	if c.Algorithm != "" {
		line += ", algorithm=" + c.Algorithm
	}
	if c.Opaque != "" {
		line += ", opaque=" + quoted(c.Opaque)
	}
	if l.auth {
		line += `, qop=auth, cnonce="` + cnonce + `"`
	}
	return []byte(line + `, uri="`)
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// append appends the header line for a request, with its end; nothing before
// the first challenge. Each call counts the nonce up.
func (l *login) append(b []byte, method, uri string) []byte {
	if !l.known {
		return b
	}
	l.count++
	b = append(b, l.line...)
	b = append(b, uri...)
	b = append(b, '"')
	if l.auth {
		b = append(b, ", nc="...)
		b = appendCount(b, l.count)
	}
	b = append(b, `, response="`...)
	b = l.appendResponse(b, method, uri)
	return append(b, "\"\r\n"...)
}

func (l *login) appendResponse(b []byte, method, uri string) []byte {
	var room [512]byte
	a2 := append(append(append(room[:0], method...), ':'), uri...)
	var ha2Room [2 * sha256.Size]byte
	ha2 := l.appendHash(ha2Room[:0], a2)

	text := append(append(room[:0], l.ha1...), ':')
	text = append(append(text, l.nonce...), ':')
	if l.auth {
		text = appendCount(text, l.count)
		text = append(text, ":"+cnonce+":auth:"...)
	}
	return l.appendHash(b, append(text, ha2...))
}

func (l *login) appendHash(b, text []byte) []byte {
	if l.sha256 {
		sum := sha256.Sum256(text)
		return hex.AppendEncode(b, sum[:])
	}
	sum := md5.Sum(text)
	return hex.AppendEncode(b, sum[:])
}

// appendCount appends a nonce count: eight hexadecimal digits.
func appendCount(b []byte, n uint32) []byte {
	var digits [8]byte
	text := strconv.AppendUint(digits[:0], uint64(n), 16)
	return append(append(b, "00000000"[len(text):]...), text...)
}
