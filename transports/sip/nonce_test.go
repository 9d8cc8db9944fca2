package sip

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestNonce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	n := newNonces(time.Minute, newSecret())
	nonce := n.make("r", now)
	changed := []byte(nonce)
	changed[5] ^= 1
	tests := []struct {
		name, nonce, realm string
		after              time.Duration
		err                error
	}{
		{"fresh", nonce, "r", 0, nil},
		{"at its end", nonce, "r", time.Minute, nil},
		{"too old", nonce, "r", time.Minute + time.Second, errStaleNonce},
		{"from the future", nonce, "r", -2 * time.Minute, errStaleNonce},
		{"of another realm", nonce, "x", 0, errStaleNonce},
		{"of another process", newNonces(time.Minute, newSecret()).make("r", now), "r", 0, errStaleNonce},
		{"changed", string(changed), "r", 0, errStaleNonce},
		{"not base64", nonce[:42] + "!", "r", 0, errStaleNonce},
		{"empty", "", "r", 0, errStaleNonce},
	}
	for _, test := range tests {
		if _, err := n.check(test.nonce, test.realm, now.Add(test.after)); err != test.err {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if nonce == n.make("r", now) {
		t.Error("twice the same nonce")
	}
}

// TestWindow compares with a window that remembers everything.
func TestWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var w window
	seen := map[uint32]bool{}
	highest := uint32(0)
	for range 20_000 {
		count := uint32(1)
		if step := random.IntN(400); highest > 250 || step > 250 {
			count = uint32(int(highest) + step/3 - 70 + random.IntN(3)*random.IntN(60)/20)
		}
		if count == 0 || count > 1<<31 {
			continue
		}
		want := !seen[count] && (count > highest || highest-count < 128)
		if got := w.add(count); got != want {
			t.Fatalf("%d with highest %d: %t, want %t", count, highest, got, want)
		}
		seen[count] = true
		highest = max(highest, count)
	}
	if highest < 1000 {
		t.Fatalf("the test went nowhere: %d", highest)
	}
}

func TestNoncesAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	n := newNonces(time.Minute, newSecret())
	use := func(at time.Time, i int) error {
		id := nonceID{0: byte(at.Unix() >> 24), 1: byte(at.Unix() >> 16), 2: byte(at.Unix() >> 8), 3: byte(at.Unix()), 4: byte(i), 5: byte(i >> 8), 6: byte(i >> 16)}
		return n.use(id, 1, at)
	}
	const room = maxWindows / nonceShards // all in one shard
	for i := range room {
		if err := use(now, i); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := use(now, room); err != errTooMany {
		t.Errorf("one too many: %v", err)
	}
	if err := use(now, 1); err != errReplay {
		t.Errorf("a known one: %v", err)
	}
	if err := use(now.Add(2*time.Minute), room); err != nil {
		t.Errorf("when the others are too old: %v", err)
	}
	if left := len(n.shards[0].windows); left != 1 {
		t.Errorf("%d are left", left)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(`Digest username="1001", realm="r", nonce="n", uri="sip:a@b", response="R", algorithm=md5, cnonce="a\"b", qop=auth, nc=00000001, opaque="x,y"`)
	f.Add(`digest username=a,realm=b,,nonce=c,uri=d,response=e`)
	f.Add(`Basic eDp5`)
	f.Add(`Digest username="`)
	f.Add(`Digest username="a", username="b"`)
	f.Fuzz(func(t *testing.T, value string) {
		d, err := parseDigest(value)
		if err != nil {
			return
		}
		if d.Username == "" || d.Realm == "" || d.Nonce == "" || d.URI == "" || d.Response == "" || d.Algorithm == "" {
			t.Errorf("%q became %+v", value, d)
		}
		if count, ok := nonceCount(&d); ok && (count == 0) != (d.QOP == "") {
			t.Errorf("%q: count %d", value, count)
		}
	})
}

func TestParseDigest(t *testing.T) {
	want := plugin.Digest{Username: `a"b,c`, Realm: "r", Nonce: "n", URI: "sip:a@b", Response: "abc", Algorithm: "SHA-256", CNonce: "c", QOP: "auth", NC: "0000000a"}
	d, err := parseDigest(`dIgEsT Username="a\"b,c" , realm="r",nonce=n, uri="sip:a@b", response="ABC", algorithm=sha-256, cnonce="c", qop="auth", nc=0000000a, opaque="x", `)
	if err != nil || d != want {
		t.Errorf("%+v %v", d, err)
	}
	if n, ok := nonceCount(&d); !ok || n != 10 {
		t.Errorf("nc %d %t", n, ok)
	}
	for _, value := range []string{"", "Digest", "Digest x", `Digest username="a", realm=r, nonce=n, uri=u, response=r, opaque`, `Digest username="a", username="b", realm=r, nonce=n, uri=u, response=r`, `Digest username="a", realm=r, nonce=n, uri=u`, `Digest username="a, realm=r, nonce=n, uri=u, response=x`} {
		if d, err := parseDigest(value); err == nil {
			t.Errorf("%q: %+v", value, d)
		}
	}
}
