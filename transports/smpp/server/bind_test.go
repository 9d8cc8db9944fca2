package server

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/wire"
)

var allModes = []pdu.ID{pdu.BindReceiverID, pdu.BindTransmitterID, pdu.BindTransceiverID}

func TestBindIsAnswered(t *testing.T) {
	d := serve(t, newGate(), nil)
	for _, mode := range allModes {
		for theirs, ours := range map[uint8]uint32{0: 0, 0x33: 0, 0x34: 0x34, 0x41: 0x34, 0x50: 0x50, 0x60: 0x50} {
			e := dial(t, d)
			q := bindAs(mode, "acme", "acme")
			q.Body.(*wire.Bind).InterfaceVersion = theirs
			a := e.want(q, wire.ROK)
			if body, ok := a.Body.(*wire.BindResp); !ok || body.SystemID != "imgate" {
				t.Errorf("%s: %+v", wire.Name(mode), a.Body)
			}
			if got, _ := a.TLVs.Uint(wire.TagScInterfaceVersion); got != ours {
				t.Errorf("to version %#x: sc_interface_version %#x, want %#x", theirs, got, ours)
			}
			e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
			e.ends()
		}
	}
}

// TestMisuse is the state machine of SMPP 3.4 §2.2 and §2.3.
func TestMisuse(t *testing.T) {
	g := newGate()
	g.submitted["m1"] = plugin.Submitted{From: message.Address{User: "+" + number1, Host: "sms.example.com"}}
	d := serve(t, g, nil)
	requests := map[string]wire.Packet{
		"submit_sm":    shortOf(pdu.SubmitSMID, number1, number2, "hello"),
		"data_sm":      {ID: pdu.DataSMID, Body: &wire.Short{Of: pdu.DataSMID, Source: numbered(number1), Destination: numbered(number2)}},
		"submit_multi": {ID: pdu.SubmitMultiID, Body: &wire.Multi{Short: wire.Short{Source: numbered(number1), Text: []byte("x")}, Destinations: []wire.Address{numbered(number2)}}},
		"query_sm":     {ID: pdu.QuerySMID, Body: &wire.Query{MessageID: "m1"}},
		"cancel_sm":    {ID: pdu.CancelSMID, Body: &wire.Cancel{MessageID: "m1"}},
		"replace_sm":   {ID: pdu.ReplaceSMID, Body: &wire.Replace{MessageID: "m1", Text: []byte("x")}},
		"deliver_sm":   shortOf(pdu.DeliverSMID, number1, number2, "hello"),
		"enquire_link": {ID: pdu.EnquireLinkID},
	}
	modes := map[string]pdu.ID{"open": 0, "receiver": pdu.BindReceiverID, "transmitter": pdu.BindTransmitterID, "transceiver": pdu.BindTransceiverID}
	for state, mode := range modes {
		for name, request := range requests {
			want := wire.RInvBndSts
			switch {
			case name == "enquire_link", mode == pdu.BindTransmitterID, mode == pdu.BindTransceiverID:
				want = wire.ROK
			}
			if name == "deliver_sm" {
				want = wire.RInvCmdID
			}
			t.Run(state+"/"+name, func(t *testing.T) {
				e := dial(t, d)
				if mode != 0 {
					e.want(bindAs(mode, "acme", "acme"), wire.ROK)
				}
				e.want(request, want)
			})
		}
		t.Run(state+"/bind", func(t *testing.T) {
			e := dial(t, d)
			if mode != 0 {
				e.want(bindAs(mode, "acme", "acme"), wire.ROK)
				e.want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.RAlyBnd)
				e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
				return
			}
			e.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK) // nothing is lost if we agree
		})
		t.Run(state+"/what has no answer", func(t *testing.T) {
			e := dial(t, d)
			if mode != 0 {
				e.want(bindAs(mode, "acme", "acme"), wire.ROK)
			}
			if _, err := e.say(wire.Packet{ID: pdu.OutbindID, Body: &wire.Outbind{SystemID: "x"}}); err != nil {
				t.Fatal(err)
			}
			e.want(wire.Packet{ID: pdu.EnquireLinkID}, wire.ROK)
		})
	}
}

func TestUnknownCommand(t *testing.T) {
	e := boundAs(t, serve(t, newGate(), nil), pdu.BindTransceiverID)
	answer := make(chan wire.Packet, 1)
	e.mu.Lock()
	e.waiting[77] = answer
	_, err := e.conn.Write([]byte{0, 0, 0, 16, 0, 0, 1, 0x11, 0, 0, 0, 0, 0, 0, 0, 77})
	e.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	a, err := e.await(t.Context(), answer)
	if err != nil || a.ID != pdu.GenericNACKID || a.Status != wire.RInvCmdID {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestBindRefusals: what may pass by itself has a status on which ESMEs come back;
// who doesn't know the password learns nothing.
func TestBindRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(*gate, *Config)
		systemID string
		password string
		reach    string
		want     pdu.Status
	}{
		"wrong password":    {password: "wrong", want: wire.RInvPaswd},
		"unknown system_id": {systemID: "nobody", want: wire.RInvPaswd},
		"another network": {func(g *gate, _ *Config) { g.attribute(attributeNetworks, "192.0.2.0/24, 192.0.3.1") },
			"", "", "", wire.RInvPaswd},
		"its network":    {func(g *gate, _ *Config) { g.attribute(attributeNetworks, "192.0.2.1,127.0.0.0/8") }, "", "", "", wire.ROK},
		"its address":    {func(g *gate, _ *Config) { g.attribute(attributeNetworks, "127.0.0.1") }, "", "", "", wire.ROK},
		"not over TLS":   {func(g *gate, _ *Config) { g.attribute(attributeTLS, "required") }, "", "", "", wire.RBindFail},
		"bad attribute":  {func(g *gate, _ *Config) { g.attribute(attributeRate, "fast") }, "", "", "", wire.RBindFail},
		"suspended":      {func(g *gate, _ *Config) { g.stranger = message.Fail(message.Forbidden, "suspended") }, "", "", "", wire.RBindFail},
		"nobody to ask":  {func(g *gate, _ *Config) { g.stranger = message.FailForNow(message.Internal, "down") }, "", "", "", wire.RMsgQFul},
		"standby":        {func(g *gate, _ *Config) { g.inactive = message.FailForNow(message.Standby, "b") }, "", "", "", wire.RSysErr},
		"draining":       {func(g *gate, _ *Config) { g.inactive = message.FailForNow(message.Draining, "b") }, "", "", "", wire.RSysErr},
		"no identities":  {func(g *gate, _ *Config) { g.accounts["acme"] = plugin.Account{ID: "x"} }, "", "", "", wire.RBindFail},
		"bad range":      {reach: "(", want: wire.RBindFail},
		"a range":        {reach: "^4477", want: wire.ROK},
		"as it is usual": {want: wire.ROK},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			d := serve(t, g, func(c *Config) {
				if test.change != nil {
					test.change(g, c)
				}
			})
			e := dial(t, d)
			q := bindAs(pdu.BindTransceiverID, "acme", "acme")
			body := q.Body.(*wire.Bind)
			if test.systemID != "" {
				body.SystemID, body.Password = test.systemID, test.systemID
			}
			if test.password != "" {
				body.Password = test.password
			}
			body.AddressRange.Number = test.reach
			e.want(q, test.want)
			if test.want == wire.ROK {
				return
			}
			if n := d.table.count(); n != 0 {
				t.Errorf("%d are bound", n)
			}
			e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.RInvBndSts)
			e.want(q, test.want) // it may try again
		})
	}
}

func (g *gate) attribute(name, value string) { g.accounts["acme"].Attributes[name] = value }

func TestBindLimits(t *testing.T) {
	g := newGate()
	g.accounts["other"] = plugin.Account{ID: "acc-other", Identities: []message.Address{{User: "+" + number2}}, Attributes: map[string]string{attributeBinds: "1"}}
	d := serve(t, g, func(c *Config) { c.Binds, c.Limits.Binds = 2, 3 })
	first := boundAs(t, d, pdu.BindTransmitterID)
	boundAs(t, d, pdu.BindReceiverID)
	dial(t, d).want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.RBindFail)
	other := dial(t, d)
	other.want(bindAs(pdu.BindTransceiverID, "other", "other"), wire.ROK)
	dial(t, d).want(bindAs(pdu.BindTransceiverID, "other", "other"), wire.RBindFail)
	other.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
	other.ends()
	waitFor(t, "the end of a session", func() bool { return d.table.count() == 2 })
	again := dial(t, d)
	again.want(bindAs(pdu.BindTransceiverID, "other", "other"), wire.ROK)
	first.want(wire.Packet{ID: pdu.UnbindID}, wire.ROK)
	first.ends()
	waitFor(t, "the end of a session", func() bool { return d.table.count() == 2 })
	g.set(func() { g.attribute(attributeBinds, "3") })
	boundAs(t, d, pdu.BindReceiverID)
	dial(t, d).want(bindAs(pdu.BindTransceiverID, "acme", "acme"), wire.RBindFail) // there are three in all
}

// TestBindTimer: who doesn't bind is hung up on.
func TestBindTimer(t *testing.T) {
	c := Defaults
	c.Listen = []string{"tcp://127.0.0.1:0"}
	d, err := New(t.Context(), plugin.Env{Instance: "esmes"}, c)
	if err != nil {
		t.Fatal(err)
	}
	if d.wire.Bind != 5*time.Second {
		t.Errorf("the bind timer is %s", d.wire.Bind)
	}
	d.wire.Bind = 50 * time.Millisecond
	serveDoor(t, newGate(), d)
	e := dial(t, d)
	e.want(bindAs(pdu.BindTransceiverID, "acme", "wrong"), wire.RInvPaswd)
	e.ends()
}

// TestRecheck: an account that may no longer bind doesn't stay bound, and one that
// may do something else now needn't bind anew.
func TestRecheck(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	e := boundAs(t, d, pdu.BindTransceiverID)
	other := shortOf(pdu.SubmitSMID, number2, number1, "x")
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
	e.want(other, wire.RInvSrcAdr)
	g.set(func() {
		g.accounts["acme"] = plugin.Account{ID: "acc-acme", Identities: []message.Address{{User: "+" + number2}}}
	})
	d.recheck(t.Context(), time.Now())
	e.want(other, wire.ROK)
	e.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.RInvSrcAdr)

	g.set(func() { g.stranger = message.FailForNow(message.Internal, "down") })
	d.recheck(t.Context(), time.Now())
	e.want(other, wire.ROK) // nobody could be asked
	for name, why := range map[string]func(){
		"suspended":        func() { g.stranger = message.Fail(message.Forbidden, "suspended") },
		"another password": func() { g.stranger = message.Fail(message.Unauthenticated, "wrong") },
		"another network": func() {
			g.stranger, g.accounts["acme"] = nil, plugin.Account{
				ID: "acc-acme", Identities: acme().Identities, Attributes: map[string]string{attributeNetworks: "192.0.2.1"},
			}
		},
		"another account": func() {
			g.stranger, g.accounts["acme"] = nil, plugin.Account{ID: "acc-else", Identities: acme().Identities}
		},
	} {
		g.set(why)
		d.recheck(t.Context(), time.Now())
		if q := e.next(); q.ID != pdu.UnbindID {
			t.Errorf("%s: %s", name, wire.Name(q.ID))
		}
		e.ends()
		waitFor(t, "the end", func() bool { return d.table.count() == 0 })
		g.set(func() { g.stranger, g.accounts["acme"] = nil, acme() })
		e = boundAs(t, d, pdu.BindTransceiverID)
	}
}

// TestGuessing: wrong passwords make an address wait, and nobody else.
func TestGuessing(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	thief, home, away := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	var g guard
	for i := range freeTries {
		if g.refuses(thief, "acme", now) {
			t.Fatalf("try %d is refused", i+1)
		}
		g.wrong(thief, "acme", now)
	}
	if !g.refuses(thief, "acme", now) {
		t.Error("after the free tries another one is looked at")
	}
	for who, refused := range map[netip.Addr]bool{home: g.refuses(home, "acme", now), away: g.refuses(away, "acme", now)} {
		if refused {
			t.Errorf("%s is locked out by another address", who)
		}
	}
	if g.refuses(thief, "other", now) {
		t.Error("another system_id is refused after three tries")
	}
	if later := now.Add(backOffMin); g.refuses(thief, "acme", later) {
		t.Error("the first back-off has no end")
	}
	for i := range 40 {
		now = now.Add(backOffMax)
		g.wrong(thief, "acme", now)
		if !g.refuses(thief, "acme", now.Add(backOff(i)-time.Second)) {
			t.Fatalf("the back-off after %d more doesn't grow", i)
		}
	}
	if g.refuses(thief, "acme", now.Add(backOffMax)) {
		t.Error("the back-off has no bound")
	}
	g.right(thief, "acme", now)
	if g.refuses(thief, "acme", now) {
		t.Error("the right password isn't the end of it")
	}
}

func TestGuessingManyNames(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	thief := netip.MustParseAddr("192.0.2.1")
	var g guard
	g.right(thief, "neighbour", now)
	for i := range freeTriesTogether {
		g.wrong(thief, string(rune('a'+i)), now)
	}
	if !g.refuses(thief, "fresh", now) {
		t.Error("an address may try as many names as it likes")
	}
	if g.refuses(thief, "neighbour", now) {
		t.Error("who has bound from there is locked out by others")
	}
	for range freeTries {
		g.wrong(thief, "neighbour", now)
	}
	if !g.refuses(thief, "neighbour", now) {
		t.Error("who has bound from there may guess for ever")
	}
}

// TestGuessingBehindProxy: one ESME with a wrong password doesn't concern the others
// behind the same address, however often it tries.
func TestGuessingBehindProxy(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	proxy := netip.MustParseAddr("192.0.2.1")
	var g guard
	for range 10 * freeTriesTogether {
		g.wrong(proxy, "misconfigured", now)
	}
	if g.refuses(proxy, "acme", now) {
		t.Error("the others behind a proxy are locked out")
	}
}

func TestLines(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := lines{most: refusalsPerMinute}
	for range refusalsPerMinute {
		if _, ok := l.next(now); !ok {
			t.Fatal("too few lines")
		}
	}
	for range 3 {
		if _, ok := l.next(now); ok {
			t.Error("too many lines")
		}
	}
	if unsaid, ok := l.next(now.Add(time.Minute)); !ok || unsaid != 3 {
		t.Errorf("%d, %t", unsaid, ok)
	}
	if unsaid, _ := l.next(now.Add(time.Minute)); unsaid != 0 {
		t.Errorf("%d are counted twice", unsaid)
	}
}

// TestGuessingFromEverywhere: while many addresses try one system_id, each has one
// try; who hasn't failed isn't concerned.
func TestGuessingFromEverywhere(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var g guard
	for i := range underAttack {
		g.wrong(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), "acme", now)
	}
	fresh := netip.MustParseAddr("198.51.100.1")
	if g.refuses(fresh, "acme", now) {
		t.Error("the owner is locked out")
	}
	g.wrong(fresh, "acme", now)
	if !g.refuses(fresh, "acme", now) {
		t.Error("under attack there is more than one try")
	}
	if g.refuses(fresh, "acme", now.Add(forgetAfter)) {
		t.Error("nothing is forgotten")
	}
}

func TestGuardIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var s suspects[int]
	for i := range maxSuspects + 10 {
		s.note(i, 1, now.Add(time.Duration(i)))
	}
	if len(s.known) != maxSuspects {
		t.Errorf("%d are kept", len(s.known))
	}
	if _, found := s.known[0]; found {
		t.Error("the oldest is kept")
	}
	s.note(-1, 1, now.Add(2*forgetAfter))
	if len(s.known) != 1 {
		t.Errorf("%d are kept after their time", len(s.known))
	}
	var g guard
	here := netip.MustParseAddr("192.0.2.1")
	for i := range maxSuspects + 10 {
		g.right(here, strconv.Itoa(i), now.Add(time.Duration(i)))
	}
	if _, found := g.known[pair{sharer(here), "9"}]; found || len(g.known) != maxSuspects {
		t.Errorf("%d are kept that are known", len(g.known))
	}
}

// TestGuessingIsRefused: over the wire the answer stays the same, and nobody is
// asked any more.
func TestGuessingIsRefused(t *testing.T) {
	g := newGate()
	d := serve(t, g, nil)
	bystander := boundAs(t, d, pdu.BindTransceiverID)
	e := dial(t, d)
	for range freeTries + 5 {
		e.want(bindAs(pdu.BindTransceiverID, "other", "wrong"), wire.RInvPaswd)
	}
	if g.asked != 1+freeTries {
		t.Errorf("asked %d times", g.asked)
	}
	bystander.want(shortOf(pdu.SubmitSMID, number1, number2, "x"), wire.ROK)
	boundAs(t, d, pdu.BindTransmitterID)
}
