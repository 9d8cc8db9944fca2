//go:build process

package main_test

import (
	"strings"
	"testing"

	"github.com/icholy/digest"
)

// credentialsFor answers the first challenge in a 401 to a REGISTER.
func credentialsFor(t *testing.T, header []string, user string) string {
	t.Helper()
	for _, line := range header {
		value, ok := strings.CutPrefix(line, "WWW-Authenticate: ")
		if !ok {
			continue
		}
		challenge, err := digest.ParseChallenge(value)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := digest.Digest(challenge, digest.Options{
			Method: "REGISTER", URI: "sip:sip.example.com", Username: user, Password: password, Cnonce: "c", Count: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: " + answer.String() + "\r\n"
	}
	t.Fatal("the answer has no challenge")
	return ""
}
