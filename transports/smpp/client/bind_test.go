package client

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/wire"
)

func TestBindSaysWhoWeAre(t *testing.T) {
	got := make(chan wire.Bind, 1)
	work(t, smsc.Config{Bind: func(b *wire.Bind) pdu.Status {
		got <- *b
		return wire.ROK
	}}, func(c *Config) {
		c.SystemID, c.Password, c.SystemType, c.Version = "me", "secret", "VMS", "5.0"
		c.Range = AddressRange{TON: 1, NPI: 1, Numbers: "^4477"}
	})
	want := wire.Bind{
		Mode: pdu.BindTransceiverID, SystemID: "me", Password: "secret", SystemType: "VMS", InterfaceVersion: 0x50,
		AddressRange: wire.Address{TON: 1, NPI: 1, Number: "^4477"},
	}
	if b := <-got; b != want {
		t.Errorf("the bind is %+v, want %+v", b, want)
	}
}

func TestPair(t *testing.T) {
	b := work(t, smsc.Config{}, func(c *Config) { c.Bind, c.Binds = "pair", 2 })
	if send, receive := b.client.binds.count(true), b.client.binds.count(false); send != 2 || receive != 2 {
		t.Errorf("%d binds can send and %d can receive, want two each", send, receive)
	}
	if _, err := b.send(sms("hello"), routeTo()); err != nil {
		t.Error(err)
	}
	if err := b.originate("hello"); err != nil {
		t.Error(err)
	}
}

func TestBindsAgainWhenLost(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	for i := range 3 {
		b.center.Sessions()[0].Close()
		b.gate.await(t, "it is reachable again", func() bool { return b.gate.reachable == i+2 })
		b.awaitBinds(1)
	}
	if n := b.client.metrics.failures[failedLost].Value(); n != 3 {
		t.Errorf("%d binds were lost", n)
	}
}

func TestBindsAgainWhenUnbound(t *testing.T) {
	b := work(t, smsc.Config{}, nil)
	if err := b.center.Sessions()[0].Unbind(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.gate.await(t, "it is reachable again", func() bool { return b.gate.reachable == 2 })
}

// TestBindThatTheSMSCHasForgotten: it is made again, and no message is lost by it.
func TestBindThatTheSMSCHasForgotten(t *testing.T) {
	var log notes
	b := newBench(t, smsc.Config{Answer: func(s smsc.Submit) smsc.Answer {
		if s.Number == 1 {
			return smsc.Answer{Status: wire.RInvBndSts}
		}
		return smsc.Answer{}
	}})
	b.open(plugin.Env{Instance: "vendor", Log: log.log()}, nil)
	b.awaitBinds(1)
	_, err := b.send(sms("hello"), routeTo())
	wantFailure(t, err, message.Unavailable, true)
	b.gate.await(t, "it is reachable again", func() bool { return b.gate.reachable == 2 })
	if _, err := b.send(sms("hello"), routeTo()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(strings.Join(log.all(), ""), "ESME_RINVBNDSTS") {
		t.Errorf("the log is %q", log.all())
	}
}

func TestNextAddressIsTried(t *testing.T) {
	b := newBench(t, smsc.Config{})
	b.open(plugin.Env{Instance: "vendor"}, func(c *Config) { c.Connect = append([]string{closedPort(t)}, c.Connect...) })
	b.awaitBinds(1)
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestRefusedBind: the log says why once, in words, and not the password.
func TestRefusedBind(t *testing.T) {
	var refusing atomic.Bool
	refusing.Store(true)
	b := newBench(t, smsc.Config{Bind: func(*wire.Bind) pdu.Status {
		if refusing.Load() {
			return wire.RInvPaswd
		}
		return wire.ROK
	}})
	var log notes
	b.open(plugin.Env{Instance: "vendor", Log: log.log()}, func(c *Config) { c.Password = "sesame" })
	b.until("it is refused some times", func() bool { return b.client.metrics.failures[failedRefused].Value() >= 3 })
	refusing.Store(false)
	b.awaitBinds(1)
	b.until("the log says so", func() bool { return len(log.all()) >= 2 })
	lines := log.all()
	if len(lines) != 2 || !strings.Contains(lines[0], "ESME_RINVPASWD") || !strings.Contains(lines[0], "password") {
		t.Errorf("the log is %q", lines)
	}
	if strings.Contains(strings.Join(lines, ""), "sesame") {
		t.Error("the log tells the password")
	}
}

func TestHopelessBindsWaitLonger(t *testing.T) {
	for status, hopeless := range map[pdu.Status]bool{
		wire.RInvPaswd: true, wire.RInvSysID: true, wire.RBindFail: true, wire.RAlyBnd: false, wire.RSysErr: false, wire.RThrottled: false,
	} {
		if got := isHopeless(&refusal{status}); got != hopeless {
			t.Errorf("%s is hopeless: %t", wire.StatusName(status), got)
		}
	}
}

// TestReconnectPauses: an SMSC that isn't there is tried less and less often.
func TestReconnectPauses(t *testing.T) {
	address := closedPort(t)
	synctest.Test(t, func(t *testing.T) {
		config := Defaults
		config.Connect = []string{address}
		c, err := New(t.Context(), plugin.Env{Instance: "vendor"}, config)
		if err != nil {
			t.Fatal(err)
		}
		c.gate = newGate()
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.keepAll(t.Context())
		}()
		time.Sleep(10 * time.Minute)
		// Five pauses of up to 1, 2, 4, 8, … s, then some of 30 s to 60 s.
		if n := c.metrics.failures[failedConnect].Value(); n < 14 || n > 28 {
			t.Errorf("in ten minutes it was tried %d times", n)
		}
		c.gate.(*gate).becomes(message.FailForNow(message.Standby, "another node"))
		<-done
	})
}

func TestOnlyTheActiveNodeBinds(t *testing.T) {
	b := newBench(t, smsc.Config{})
	standby := message.FailForNow(message.Standby, "another node is active")
	b.gate.inactive = standby
	b.open(plugin.Env{Instance: "vendor"}, nil)
	select {
	case <-b.pdus:
		t.Error("a standby says something to the SMSC")
	case <-time.After(2 * activeEvery):
	}
	for range 2 {
		b.gate.becomes(nil)
		b.awaitBinds(1)
		if _, err := b.send(sms("hello"), routeTo()); err != nil {
			t.Error(err)
		}
		unbinds := b.count(pdu.UnbindID)
		b.gate.becomes(standby)
		b.until("it unbinds", func() bool { return b.count(pdu.UnbindID) == unbinds+1 })
		b.until("nothing can be sent", func() bool {
			_, err := b.send(sms("hello"), routeTo())
			return err != nil && message.AsFailure(err).Reason == message.Unavailable
		})
	}
}

// TestUnbindsWithDrain: what is under way has its answer first.
func TestUnbindsWithDrain(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{After: 300 * time.Millisecond} }}, nil)
	done := make(chan error, 1)
	go func() {
		_, err := b.send(sms("hello"), routeTo())
		done <- err
	}()
	b.until("it is under way", func() bool { return b.count(pdu.SubmitSMID) == 1 })
	b.end()
	if err := <-done; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	if b.count(pdu.UnbindID) != 1 {
		t.Error("it has not unbound")
	}
}

func TestServeEndsThoughTheSMSCIsSilent(t *testing.T) {
	b := work(t, smsc.Config{Answer: func(smsc.Submit) smsc.Answer { return smsc.Answer{Silent: true} }}, nil)
	done := make(chan error, 1)
	go func() {
		_, err := b.send(sms("hello"), routeTo())
		done <- err
	}()
	b.until("it is under way", func() bool { return b.count(pdu.SubmitSMID) == 1 })
	began := time.Now()
	b.end()
	if took := time.Since(began); took > partingWithin+time.Second {
		t.Errorf("it took %s", took)
	}
	wantFailure(t, <-done, message.NoAnswer, true)
}
