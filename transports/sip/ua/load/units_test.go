package load

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/icholy/digest"

	"github.com/imgate/imgate/transports/sip/ua/internal/process"
)

func TestLoginAnswersAsAnIndependentClientDoes(t *testing.T) {
	for _, c := range []digest.Challenge{
		{Realm: "r", Nonce: "n", Algorithm: "MD5", QOP: []string{"auth"}},
		{Realm: "r", Nonce: "n", Algorithm: "SHA-256", QOP: []string{"auth-int", "auth"}},
		{Realm: "r", Nonce: "n", Algorithm: "md5"},
		{Realm: `say "r"`, Nonce: `n\`, Opaque: "o", QOP: []string{"auth"}},
	} {
		l := login{username: "alice", password: "secret"}
		if err := l.challenged(&datagram{code: 401, challenges: [][]byte{[]byte("Basic realm=x"), []byte(c.String())}}); err != nil {
			t.Fatal(err)
		}
		for count := 1; count <= 3; count++ {
			line := string(l.append(nil, "MESSAGE", "sip:b@c"))
			value := line[len("Authorization: ") : len(line)-len("\r\n")]
			got, err := digest.ParseCredentials(value)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			want, err := digest.Digest(&c, digest.Options{Method: "MESSAGE", URI: "sip:b@c", Count: count, Username: "alice", Password: "secret", Cnonce: cnonce})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.QOP) == 0 {
				want.Nc, want.Cnonce = 0, ""
			}
			if *got != *want {
				t.Errorf("%s:\ngot  %+v\nwant %+v", c.String(), *got, *want)
			}
		}
	}
}

func TestLoginRefusesWhatItCannotAnswer(t *testing.T) {
	for _, challenge := range []string{
		"", "Basic realm=x", `Digest realm="r", nonce="n", algorithm=SHA-512`, `Digest realm="r", nonce="n", qop="auth-int"`,
		"Digest realm=\"a\r\nb\", nonce=\"n\"",
	} {
		var l login
		if err := l.challenged(&datagram{code: 401, challenges: [][]byte{[]byte(challenge)}}); !errors.Is(err, errNoChallenge) {
			t.Errorf("%q: %v", challenge, err)
		}
	}
	var l login
	if line := l.append(nil, "MESSAGE", "sip:b@c"); line != nil {
		t.Errorf("before a challenge: %q", line)
	}
}

func TestLoginAnswersProxies(t *testing.T) {
	var l login
	if err := l.challenged(&datagram{code: 407, challenges: [][]byte{[]byte(`Digest realm="r", nonce="n"`)}}); err != nil {
		t.Fatal(err)
	}
	if line := string(l.append(nil, "MESSAGE", "sip:b@c")); line[:20] != "Proxy-Authorization:" {
		t.Errorf("got %q", line)
	}
}

func TestLoginNeedsNoMemory(t *testing.T) {
	l := login{username: "alice", password: "secret"}
	l.use(&digest.Challenge{Realm: "r", Nonce: "n", QOP: []string{"auth"}}, 401)
	room := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { l.append(room, "MESSAGE", "sip:b@sip.example.com") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHistogramAgainstSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var h histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(3*time.Millisecond))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))-1]
		if got := h.quantile(q); got < exact || float64(got) > 1.02*float64(exact) {
			t.Errorf("p%v: %s, exactly %s", 100*q, got, exact)
		}
	}
	if h.quantile(1) != all[len(all)-1] || h.longest != all[len(all)-1] {
		t.Errorf("longest %s, want %s", h.longest, all[len(all)-1])
	}
}

func TestHistogramOfLittle(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
	h.add(-1)
	h.add(time.Second)
	if h.quantile(0.5) != 0 || h.quantile(0.51) != time.Second || h.quantile(0.99) != time.Second {
		t.Errorf("got %s, %s, %s", h.quantile(0.5), h.quantile(0.51), h.quantile(0.99))
	}
}

func TestClassesCoverEverything(t *testing.T) {
	last := -1
	for v := uint64(1); v < 1<<62; v += v/8 + 1 {
		class := classOf(v)
		if class < last || upperBound(class) < v || class > 0 && upperBound(class-1) >= v {
			t.Fatalf("%d is in class %d up to %d", v, class, upperBound(class))
		}
		last = class
	}
	if class := classOf(1<<63 - 1); class >= len(histogram{}.classes) {
		t.Errorf("the longest duration is in class %d", class)
	}
}

func TestTally(t *testing.T) {
	now := time.Unix(1000, 0)
	y := newTally(2)
	if s, measured := y.send(0); s != 0 || measured {
		t.Errorf("warming up: %d, %v", s, measured)
	}
	y.final(0, 0, 200, false, time.Hour, now) // acknowledged, arrives later
	y.begin(now)
	for want := 1; want <= 5; want++ {
		if s, measured := y.send(0); s != want || !measured {
			t.Errorf("%d, %v, want %d", s, measured, want)
		}
	}
	y.arrive(0, 1, 11, now) // before its final
	y.final(0, 1, 200, true, time.Second, now.Add(time.Second))
	y.final(0, 2, 202, true, 2*time.Second, now.Add(2*time.Second))
	y.final(0, 3, 402, true, 3*time.Second, now.Add(3*time.Second))
	y.timeout(true)
	y.arrive(0, 4, 14, now) // of one that timed out
	y.arrive(0, 1, 11, now) // a retransmission
	y.arrive(0, 1, 12, now) // a duplicate
	y.arrive(0, 0, 10, now) // out of order
	y.arrive(1, 0, 20, now) // never sent
	y.arrive(2, 0, 20, now) // no such pair
	y.misdelivered()
	y.stray()

	if y.sent != 5 || y.finals[200] != 1 || y.finals[202] != 1 || y.finals[402] != 1 || y.timeouts != 1 || y.successes != 2 {
		t.Errorf("measured: %+v", y)
	}
	if y.acked != 3 || y.arrived != 3 || y.owed != 1 || y.duplicates != 1 || y.disordered != 1 || y.wrong != 3 || y.strays != 1 {
		t.Errorf("counted: %+v", y)
	}
	if y.latencies.count != 3 || y.latencies.longest != 3*time.Second || !y.lastFinal.Equal(now.Add(2*time.Second)) {
		t.Errorf("timed: %+v", y)
	}
}

func TestSettled(t *testing.T) {
	now := time.Unix(1000, 0)
	y := newTally(1)
	y.send(0)
	y.final(0, 0, 202, false, 0, now)
	y.countArrivals(now)
	const patience = 10 * time.Second
	if y.settled(now, now.Add(9*time.Second), patience) || !y.settled(now, now.Add(10*time.Second), patience) {
		t.Error("patience isn't kept, or doesn't end")
	}
	y.arrive(0, 0, 1, now)
	if !y.settled(now, now, patience) || y.counted != 1 || y.missing() != 0 {
		t.Error("all has arrived")
	}
}

func TestPace(t *testing.T) {
	began := time.Unix(1000, 0)
	if got := (pace{window: 8}).allowance(began, 100, 5); got != 3 {
		t.Errorf("closed loop: %d, want 3", got)
	}
	open := pace{rate: 100, began: began}
	if got := open.allowance(began.Add(time.Second), 90, 1000); got != 10 {
		t.Errorf("open loop: %d, want 10", got)
	}
	if got := open.allowance(began.Add(-time.Second), 0, 0); got != 0 {
		t.Errorf("before the beginning: %d, want 0", got)
	}
}

func TestShare(t *testing.T) {
	for _, n := range []int{0, 1, 64, 65, 1000} {
		sum := 0
		for part := range 3 {
			sum += share(n, 3, part)
		}
		if sum != n {
			t.Errorf("the shares of %d add up to %d", n, sum)
		}
	}
}

func TestMakePairs(t *testing.T) {
	var accounts []*account
	for i := range 20 {
		a, err := newAccount(i, "u"+strconv.Itoa(i)+"@x", "")
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	for _, c := range []struct{ users, ask, want int }{{2, 100, 2}, {20, 100, 100}, {20, 380, 380}, {20, 1000, 380}} {
		pairs := makePairs(accounts[:c.users], c.ask)
		seen := map[[2]int]bool{}
		for i, p := range pairs {
			if p.from == p.to || p.id != i || p.uri != "sip:"+p.to.aor {
				t.Errorf("pair %+v", p)
			}
			seen[[2]int{p.from.index, p.to.index}] = true
		}
		if len(pairs) != c.want || len(seen) != c.want {
			t.Errorf("%d users, %d asked: %d pairs, %d different, want %d", c.users, c.ask, len(pairs), len(seen), c.want)
		}
	}
}

func TestBodies(t *testing.T) {
	for _, size := range []int{minSize, 100, maxSize} {
		f, err := newBodies("ABCDEFGH", size)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 7, 123_456_789} {
			body := f.append([]byte("before"), n, n+1)[len("before"):]
			pair, sequence, err := f.read(body)
			if err != nil || len(body) != size || pair != n || sequence != n+1 {
				t.Errorf("%q: %d, %d, %v", body, pair, sequence, err)
			}
		}
	}
	f, _ := newBodies("ABCDEFGH", minSize)
	good := string(f.append(nil, 1, 2))
	for body, want := range map[string]error{
		"":                            errStray,
		"bench OTHER000 1 2 ":         errStray,
		good[:len(good)-1]:            errDamaged,
		good[:len(good)-1] + "?":      errDamaged,
		"bench ABCDEFGH 1":            errDamaged,
		"bench ABCDEFGH x 2 .":        errDamaged,
		good + ".":                    errDamaged,
		"bench ABCDEFGH 1 -2 " + good: errDamaged,
	} {
		if _, _, err := f.read([]byte(body)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", body, err, want)
		}
	}
	for _, size := range []int{minSize - 1, maxSize + 1} {
		if _, err := newBodies("ABCDEFGH", size); err == nil {
			t.Errorf("size %d was taken", size)
		}
	}
}

func TestSpent(t *testing.T) {
	got := spent(&process.Usage{CPU: time.Second}, &process.Usage{CPU: 2 * time.Second, Resident: 5, Peak: 6}, 10_000)
	if *got != (cost{MicrosPerMessage: 100, Resident: 5, Peak: 6}) {
		t.Errorf("got %+v", got)
	}
	if spent(nil, &process.Usage{}, 1) != nil {
		t.Error("something came of nothing")
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		report report
		fails  bool
	}{
		{report{Acknowledged: 1, Duplicates: 1, OutOfOrder: 1, Timeouts: 1}, false},
		{report{Acknowledged: 1, Lost: 1}, true},
		{report{Acknowledged: 1, Wrong: 1}, true},
		{report{}, true},
	} {
		if got := c.report.verdict() != nil; got != c.fails {
			t.Errorf("%+v: %v", c.report, c.report.verdict())
		}
	}
}
