package sip

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// testTenure is that of a node that has been active for ever.
var testTenure = plugin.Tenure{Fence: 1, Key: [32]byte{1}}

func TestNonce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	n := newNonces(time.Minute, testTenure, time.Time{})
	nonce := n.make("r", "address", "source", now)
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
		{"of another realm", nonce, "x", 0, errForeignNonce},
		{"of another installation", newNonces(time.Minute, plugin.Tenure{Fence: 1, Key: [32]byte{2}}, time.Time{}).make("r", "address", "source", now), "r", 0, errForeignNonce},
		{"changed", string(changed), "r", 0, errForeignNonce},
		{"not base64", nonce[:47] + "!", "r", 0, errForeignNonce},
		{"empty", "", "r", 0, errForeignNonce},
	}
	for _, test := range tests {
		if _, err := n.check(test.nonce, test.realm, now.Add(test.after)); err != test.err {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if nonce == n.make("r", "address", "source", now) {
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

// TestAnAccountCrowdsOutOnlyItself uses more nonces than an account may have.
// What it loses is spent, and others don't notice.
func TestAnAccountCrowdsOutOnlyItself(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	n := newNonces(time.Minute, testTenure, now)
	fresh := func() nonceID {
		id, err := n.check(n.make("r", "address", "source", now), "r", now)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	good, first := fresh(), fresh()
	if err := n.use("good", good, 1, now); err != nil {
		t.Fatal(err)
	}
	unused := fresh()
	if err := n.use("greedy", first, 1, now); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxPerAccount {
		if err := n.use("greedy", fresh(), 1, now); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range map[string]nonceID{"one that was given up": first, "an older one that wasn't used": unused} {
		if err := n.use("greedy", id, 2, now); err != errStaleNonce {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := n.use("good", good, 1, now); err != errReplay {
		t.Errorf("somebody else's replay: %v", err)
	}
	if err := n.use("good", good, 2, now); err != nil {
		t.Errorf("somebody else's next request: %v", err)
	}
}

func TestNoncesAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	n := newNonces(time.Minute, testTenure, now)
	use := func(account string, now time.Time) {
		var id nonceID // what MACs it has is no matter: they would take long to make
		binary.BigEndian.PutUint64(id[:], uint64(n.tick(now.UnixMicro())))
		if err := n.use(account, id, 1, now); err != nil {
			t.Fatalf("%s: %v", account, err)
		}
	}
	windows := func() (all int) {
		for i := range n.shards {
			all += len(n.shards[i].windows)
		}
		return all
	}
	for i := range maxWindows {
		use(fmt.Sprint(i), now)
	}
	if got := windows(); got > maxWindows {
		t.Errorf("%d windows", got)
	}
	later := now.Add(2 * time.Minute)
	for i := range 1000 { // reaches every shard
		use(fmt.Sprint("later", i), later)
	}
	if got := windows(); got != 1000 {
		t.Errorf("%d windows are left of those that are too old", got-1000)
	}
}

func TestOfferedAlgorithms(t *testing.T) {
	both := []string{"MD5", "SHA-256"}
	for agent, want := range map[string]string{
		"": "[MD5 SHA-256]", "baresip v1.0.0 (x86_64/linux)": "[MD5]", "baresip v3.5.0": "[MD5 SHA-256]", "Linphone/5.1": "[MD5 SHA-256]",
	} {
		if got := fmt.Sprint(offered(both, agent, "udp")); got != want {
			t.Errorf("%q is offered %s, want %s", agent, got, want)
		}
	}
	if got := fmt.Sprint(offered(both, "", "wss")); got != "[MD5]" {
		t.Errorf("a browser is offered %s", got)
	}
	if got := offered([]string{"SHA-256"}, "baresip v1.0.0", "ws"); len(got) != 1 {
		t.Errorf("what isn't configured is offered: %v", got)
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
