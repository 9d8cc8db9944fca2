package message

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestIDsGrowAlsoWhenTheClockStepsBack(t *testing.T) {
	var g Generator
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	last := g.New(now)
	for i := range 10_000 {
		id := g.New(now.Add(-time.Duration(i) * time.Millisecond))
		if bytes.Compare(id[:], last[:]) <= 0 {
			t.Fatalf("%s comes after %s", id, last)
		}
		last = id
	}
	var next Generator
	next.Seen(last)
	if id := next.New(now.Add(-time.Hour)); bytes.Compare(id[:], last[:]) <= 0 {
		t.Errorf("after a restart %s comes after %s", id, last)
	}
}

func TestIDIsUUIDv7(t *testing.T) {
	var g Generator
	now := time.UnixMilli(1767323045678)
	id := g.New(now)
	s := id.String()
	if s[14] != '7' || !strings.ContainsRune("89ab", rune(s[19])) {
		t.Errorf("%s isn't a UUID of version 7", s)
	}
	if !id.Time().Equal(now) {
		t.Errorf("made at %s, says %s", now, id.Time())
	}
	back, err := ParseID(s)
	if err != nil || back != id {
		t.Errorf("%s reads back as %s, %v", s, back, err)
	}
	for _, bad := range []string{"", "x", s[1:], s + "0", strings.Replace(s, "-", "0", 1), "z" + s[1:]} {
		if _, err := ParseID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseID(%q): %v", bad, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]Address{
		"1001@sip.example.com":      {"1001", "sip.example.com"},
		" sip:1001@SIP.Example.com": {"1001", "sip.example.com"},
		"1001@[2001:db8::1]":        {"1001", "[2001:db8::1]"},
	} {
		if got, err := ParseAddress(in); err != nil || got != want {
			t.Errorf("ParseAddress(%q) = %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "1001", "@x", "a@", "a b@c", "a@b@c", "a@b:5060", "a@[::1]:5060", "<a@b>", "a\r\n@b", strings.Repeat("a", 300) + "@b"} {
		if got, err := ParseAddress(bad); err == nil {
			t.Errorf("ParseAddress(%q) = %v", bad, got)
		}
	}
}

func TestAsFailure(t *testing.T) {
	final := Fail(Gone, "left")
	if got := AsFailure(fmt.Errorf("wrapped: %w", final)); got != final {
		t.Errorf("got %v", got)
	}
	if got := AsFailure(errors.New("anything")); got.Reason != Internal || !got.Temporary {
		t.Errorf("an unknown error is %v, temporary %t: giving up must be on purpose", got, got.Temporary)
	}
}

func TestPublicIDsAreUnlike(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewPublicID()
		if len(id) != 22 || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]string{ // empty: it is none
		"+447700900123": "+447700900123", "2424": "2424", "+44 7700": "", "+44-(0)77.00": "+4407700", "": "", "+": "", "-": "", "a": "", "++1": "",
		"1+": "", "\u0661": "", strings.Repeat("1", 32): strings.Repeat("1", 32), "+" + strings.Repeat("1", 33): "",
	} {
		if got, ok := ParseNumber(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
	}
}
