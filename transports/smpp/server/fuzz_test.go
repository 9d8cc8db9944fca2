package server

import "testing"

// FuzzReach: whatever an address_range is, it is read or refused, and matching ends.
func FuzzReach(f *testing.F) {
	for _, seed := range []string{"", "447700900001", "+1,2;3", "^44.*", "(a|b)*c", "[", "\\", "a{1000}"} {
		f.Add(seed, "447700900001")
	}
	f.Fuzz(func(t *testing.T, text, number string) {
		r, err := parseReach(text)
		if err == nil && text == "" && !r.covers(number) {
			t.Error("no range is not all")
		}
		r.covers(number)
	})
}

// FuzzProgress: what comes back may be anything, and never names a part that there
// isn't.
func FuzzProgress(f *testing.F) {
	f.Add([]byte{3, 5}, 3)
	f.Add([]byte(nil), 255)
	f.Add([]byte{255}, 1)
	f.Fuzz(func(t *testing.T, b []byte, parts int) {
		if parts < 1 || parts > 255 {
			return
		}
		p := readProgress(b, parts)
		for i := range parts {
			if p.add(i); !p.has(i) {
				t.Errorf("part %d of %d isn't noted", i, parts)
			}
		}
	})
}
