package client

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/smsc"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// caller is an SMSC that connects to us.
type caller struct {
	binds chan wire.Packet
}

func (c *caller) Request(s *wire.Session, p wire.Packet) {
	if b, ok := p.Body.(*wire.Bind); ok {
		s.Respond(p, wire.ROK, &wire.BindResp{Mode: wire.ResponseTo(b.Mode), SystemID: "smsc"}, nil)
		c.binds <- p
	}
}

func (c *caller) Closed(*wire.Session, error) { close(c.binds) }

// call connects to an address and asks for a bind.
func call(t *testing.T, address string, o *wire.Outbind) (*wire.Session, *caller) {
	t.Helper()
	var conn net.Conn
	var err error
	for deadline := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		if conn, err = net.Dial("tcp", address); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.Encode(nil, &wire.Packet{ID: pdu.OutbindID, Sequence: 1, Body: o})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	c := &caller{binds: make(chan wire.Packet, 1)}
	session := wire.NewSession(conn, wire.Config{}, c)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		session.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return session, c
}

// invited is an instance that waits for outbind.
func invited(t *testing.T, network string) (*bench, string) {
	b := newBench(t, smsc.Config{})
	address := closedPort(t)
	b.open(plugin.Env{Instance: "vendor"}, func(c *Config) {
		c.Connect = nil
		c.Outbind = Outbind{Listen: address, SystemID: "smsc", Password: "sesame", Networks: []string{network}}
	})
	return b, address
}

func TestOutbind(t *testing.T) {
	b, address := invited(t, "127.0.0.0/8")
	session, c := call(t, address, &wire.Outbind{SystemID: "smsc", Password: "sesame"})
	if p, ok := <-c.binds; !ok || p.ID != pdu.BindReceiverID || p.Body.(*wire.Bind).SystemID != "imgate" {
		t.Fatalf("outbind is answered with %+v", p)
	}
	response, err := session.Do(t.Context(), receipt("1", "DELIVRD", 0), nil)
	if err != nil || response.Status != wire.ROK {
		t.Errorf("a receipt: %v, %v", response.Status, err)
	}
	b.gate.becomes(message.FailForNow(message.Standby, "another node"))
	<-session.Done()
}

func TestOutbindOfStrangers(t *testing.T) {
	for name, o := range map[string]*wire.Outbind{
		"another password": {SystemID: "smsc", Password: "other"}, "another system_id": {SystemID: "other", Password: "sesame"},
	} {
		b, address := invited(t, "127.0.0.1")
		_, c := call(t, address, o)
		if p, ok := <-c.binds; ok {
			t.Errorf("%s: outbind is answered with %+v", name, p)
		}
		b.end()
	}
	b, address := invited(t, "192.0.2.0/24")
	_, c := call(t, address, &wire.Outbind{SystemID: "smsc", Password: "sesame"})
	if p, ok := <-c.binds; ok {
		t.Errorf("from elsewhere: outbind is answered with %+v", p)
	}
	b.end()
}

func TestOutbindToAStandby(t *testing.T) {
	b, address := invited(t, "127.0.0.1")
	b.gate.becomes(message.FailForNow(message.Standby, "another node"))
	_, c := call(t, address, &wire.Outbind{SystemID: "smsc", Password: "sesame"})
	if p, ok := <-c.binds; ok {
		t.Errorf("outbind is answered with %+v", p)
	}
}

// TestNothingBeforeTheBind: who has not said the password yet brings no messages.
func TestNothingBeforeTheBind(t *testing.T) {
	b, address := invited(t, "127.0.0.1")
	var conn net.Conn
	b.until("the port is open", func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", address)
		return err == nil
	})
	defer conn.Close()
	for _, body := range []*wire.Short{receipt("1", "DELIVRD", 0), {Of: pdu.DeliverSMID, Source: wire.Address{Number: "123"}, Destination: wire.Address{Number: "123"}}} {
		frame, err := wire.Encode(nil, &wire.Packet{ID: pdu.DeliverSMID, Sequence: 1, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		p, err := readPDU(conn)
		if err != nil || p.Status != wire.RInvBndSts {
			t.Errorf("%s, %v", wire.StatusName(p.Status), err)
		}
	}
	if len(b.gate.arrivals)+len(b.gate.reports) > 0 {
		t.Error("something came in")
	}
}
