package load

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/transports/sip/ua/internal/fakesip"
)

// TestFollowsTheActiveServer: of two nodes first one takes traffic and then the
// other; nothing is lost between them.
func TestFollowsTheActiveServer(t *testing.T) {
	var over atomic.Int64 // requests that came until the second took over
	isOver := func() bool { return over.Load() > 100 }
	first, accounts := fake(t, fakesip.Config{Standby: func() bool { return over.Add(1) > 100 }})
	second, _ := fake(t, fakesip.Config{Standby: func() bool { return !isOver() }})
	s := quick(first)
	s.servers = append(s.servers, second.Address())
	result, err := measure(t.Context(), s, accounts)
	if err != nil {
		t.Fatal(err)
	}
	got := countsOf(result)
	// The second fake knows nobody's contact, and so keeps what it gets.
	if got.sent != 200 || got.timeouts != 0 || got.ok+got.accepted != 200 || got.accepted == 0 || got.wrong+got.duplicates+got.disordered > 0 {
		t.Errorf("%+v", got)
	}
	f := result.FailOver
	if f == nil || len(f.Servers) != 2 || f.Servers[0].Unavailable == 0 || f.Servers[1].Requests == 0 || f.AnswerGap <= 0 || f.ArrivalGap <= 0 {
		t.Fatalf("%+v", f)
	}
	var table strings.Builder
	if err := result.writeTable(&table); err != nil || !strings.Contains(table.String(), "ms between answers") || !strings.Contains(table.String(), second.Address()) {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// TestLeavesASilentServer with the same request.
func TestLeavesASilentServer(t *testing.T) {
	silent, accounts := fake(t, fakesip.Config{DropRequest: func(int) bool { return true }})
	second, _ := fake(t, fakesip.Config{})
	s := quick(silent)
	s.servers = append(s.servers, second.Address())
	result, err := measure(t.Context(), s, accounts)
	if err != nil {
		t.Fatal(err)
	}
	if got := countsOf(result); got.ok != 200 || got.lost != 0 || result.FailOver.Servers[0].Silent == 0 {
		t.Errorf("%+v, %+v", got, result.FailOver)
	}
}

// TestNobodyTakesTraffic: all are asked for as long as a request lives.
func TestNobodyTakesTraffic(t *testing.T) {
	always := func() bool { return true }
	first, accounts := fake(t, fakesip.Config{Standby: always})
	second, _ := fake(t, fakesip.Config{Standby: always})
	s := quick(first)
	s.servers = append(s.servers, second.Address())
	s.timers = timers{t1: 5 * time.Millisecond, t2: 20 * time.Millisecond}
	_, err := measure(t.Context(), s, accounts)
	if err == nil || !strings.Contains(err.Error(), "no answer from") {
		t.Errorf("%v", err)
	}
}

// TestSameRequestToTheNextServer, octet for octet, where the outcome is unknown;
// after a refusal in a new transaction with the same CSeq.
func TestSameRequestToTheNextServer(t *testing.T) {
	e, err := openEndpoint(t.Context(), settings{servers: []string{"127.0.0.1:9", "127.0.0.1:10"}, timers: standardTimers}, 0, "run")
	if err != nil {
		t.Fatal(err)
	}
	defer e.conn.Close()
	a, err := newAccount(0, "u0@"+domain, "secret")
	if err != nil {
		t.Fatal(err)
	}
	e.adopt(a)
	if e.bodies, err = newBodies("run", 100); err != nil {
		t.Fatal(err)
	}
	x, index := e.begin(a)
	x.pair, x.serial = newPair(0, a, a), 1
	e.try(x, index)
	packet, asked := string(x.packet), x.asked
	if e.turn(x, asked.Add(e.timers.silence()-1)) || !e.turn(x, asked.Add(e.timers.silence())) || x.server != 1 || e.chosen != 1 || !x.unsure || string(x.packet) != packet {
		t.Errorf("after a silence: %+v", x)
	}
	e.refused(x, index)
	if x.server != 0 || e.chosen != 0 || string(x.packet) == packet || !strings.Contains(string(x.packet), "\r\nCSeq: 1 MESSAGE\r\n") {
		t.Errorf("after a refusal: %+v", x)
	}
	e.refused(x, index)
	if !x.asked.IsZero() || !e.turn(x, time.Now()) || x.asked.IsZero() {
		t.Errorf("after a round: %+v", x)
	}
	if got := e.remotes; got[0].requests != 2 || got[1].requests != 2 || got[0].unavailable != 1 || got[1].unavailable != 1 || got[0].silent != 1 {
		t.Errorf("%+v", got)
	}
}
