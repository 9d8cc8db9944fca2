package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// served lets sessions with a user in until the test ends.
func served(t testing.TB, l ListenConfig, c Config, u Handler) *Listener {
	t.Helper()
	listener, err := Listen(t.Context(), "127.0.0.1:0", l)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		listener.Serve(t.Context(), func(ctx context.Context, conn net.Conn) { NewSession(conn, c, u).Run(ctx) })
	}()
	t.Cleanup(func() {
		<-over // the test's context is done
		if n := listener.Counts().Open; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return listener
}

// certificate makes one for localhost.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	u := newUser(accept)
	l := served(t, ListenConfig{TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}}, Config{}, u)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := newPeer(t, conn)
	p.send(samples["bind_transceiver"])
	p.expect(pdu.BindTransceiverRespID, ROK, 1)
	p.send(submitted(2), samples["unbind"])
	p.expect(pdu.SubmitSMRespID, ROK, 2)
	p.expect(pdu.UnbindRespID, ROK, 2)
	if _, open := <-p.packets; open {
		t.Error("more came")
	}
	conn.Close()
	if why := <-u.closed; !errors.Is(why, ErrUnbound) {
		t.Error(why)
	}
}

func TestHandshakeDeadline(t *testing.T) {
	l := served(t, ListenConfig{TLS: &tls.Config{}, Handshake: 50 * time.Millisecond}, Config{}, newUser(nil))
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if n, err := silent.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d octets", n)
	}
	until(t, func() bool { c := l.Counts(); return c.Handshakes == 1 && c.Open == 0 })
}

func TestConnectionLimits(t *testing.T) {
	for name, c := range map[string]struct {
		config  ListenConfig
		refused func(ListenerCounts) uint64
	}{
		"in all":          {ListenConfig{Connections: 2}, func(c ListenerCounts) uint64 { return c.TooMany }},
		"from an address": {ListenConfig{PerAddress: 2}, func(c ListenerCounts) uint64 { return c.TooManyOfOne }},
	} {
		t.Run(name, func(t *testing.T) {
			l := served(t, c.config, Config{}, answering{})
			var conns []net.Conn
			for range 3 {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conns = append(conns, conn)
			}
			if _, err := conns[2].Read(make([]byte, 1)); err == nil {
				t.Error("the third was let in")
			}
			if counts := l.Counts(); c.refused(counts) != 1 || counts.Open != 2 || counts.Accepted != 2 {
				t.Errorf("%+v", counts)
			}
			conns[0].Close()
			until(t, func() bool { return l.Counts().Open == 1 })
			again, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			until(t, func() bool { return l.Counts().Accepted == 3 })
		})
	}
}

// TestStrangersMakeRoom: who doesn't bind is in nobody's way, and who is known
// never has to go.
func TestStrangersMakeRoom(t *testing.T) {
	for name, config := range map[string]ListenConfig{
		"in all":          {Connections: 3, Strangers: true},
		"from an address": {PerAddress: 3, Strangers: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := served(t, config, Config{}, answering{})
			accepted := 0
			dial := func() net.Conn {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				accepted++
				until(t, func() bool { return int(l.Counts().Accepted) == accepted })
				return conn
			}
			know := func(conn net.Conn) { l.Know(conn.LocalAddr().(*net.TCPAddr).AddrPort()) }
			isClosed := func(conn net.Conn) bool {
				_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, err := conn.Read(make([]byte, 1))
				return !errors.Is(err, os.ErrDeadlineExceeded)
			}
			friend, first := dial(), dial()
			know(friend)
			second, third := dial(), dial()
			if !isClosed(first) || isClosed(friend) || isClosed(second) || isClosed(third) {
				t.Error("another one than the stranger who came first had to go")
			}
			know(second)
			know(third)
			late, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer late.Close()
			if !isClosed(late) || isClosed(friend) {
				t.Error("somebody who is known had to go")
			}
			if n := l.Counts().Open; n != 3 {
				t.Errorf("%d are open", n)
			}
		})
	}
}

// TestCrowd: those leave who are most.
func TestCrowd(t *testing.T) {
	g := guests{perAddress: map[netip.Prefix]int{}}
	enter := func(address string) *guest {
		conn := &from{Conn: nothing{}, address: address}
		s := &guest{conn: conn, who: sharer(conn), peer: addrPort(conn.RemoteAddr())}
		g.enter(s, true)
		return s
	}
	alone, one, two := enter("192.0.2.1:1"), enter("192.0.2.2:1"), enter("192.0.2.2:2")
	if !g.makeRoom(netip.Prefix{}) || !one.left || two.left || alone.left || g.open != 2 {
		t.Error("somebody else had to go")
	}
	g.leave(one) // a second time
	g.makeRoom(netip.Prefix{})
	g.makeRoom(netip.Prefix{})
	if g.makeRoom(netip.Prefix{}) || g.open != 0 || len(g.perAddress) != 0 || len(g.strangers) != 0 {
		t.Errorf("%+v", g)
	}
}

// nothing is a connection that can be closed.
type nothing struct{ net.Conn }

func (nothing) Close() error { return nil }

// until waits for something that a goroutine of the system's is about to do.
func until(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
		time.Sleep(time.Millisecond)
	}
}

// broken is a listener whose Accept fails so often.
type broken struct {
	net.Listener
	fails int
	times []time.Time
}

func (b *broken) Accept() (net.Conn, error) {
	b.times = append(b.times, time.Now())
	if b.fails--; b.fails >= 0 {
		return nil, syscall.EMFILE
	}
	return nil, net.ErrClosed
}

func (b *broken) Close() error { return nil }

// TestAcceptBacksOff: it neither spins nor gives up.
func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broken{fails: 10}
		l := newListener(b, ListenConfig{})
		l.Serve(t.Context(), nil)
		if l.Counts().Errors != 10 || len(b.times) != 11 {
			t.Errorf("%+v", l.Counts())
		}
		if last := b.times[10].Sub(b.times[9]); last != acceptPauseMax {
			t.Errorf("the last pause was %s", last)
		}
		if first := b.times[1].Sub(b.times[0]); first != acceptPauseMin {
			t.Errorf("the first pause was %s", first)
		}
	})
}

// TestCloseLeavesConnections: nobody is let in any more, and who is in stays.
func TestCloseLeavesConnections(t *testing.T) {
	u := newUser(accept)
	l := served(t, ListenConfig{}, Config{}, u)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := newPeer(t, conn)
	p.send(samples["bind_transceiver"])
	p.expect(pdu.BindTransceiverRespID, ROK, 1)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if late, err := net.Dial("tcp", l.Addr().String()); err == nil {
		late.Close()
		t.Error("a connection was let in")
	}
	p.send(samples["enquire_link"], samples["unbind"])
	p.expect(pdu.EnquireLinkRespID, ROK, 12)
	p.expect(pdu.UnbindRespID, ROK, 2)
	if why := <-u.closed; !errors.Is(why, ErrUnbound) {
		t.Error(why)
	}
}

func TestListenRefused(t *testing.T) {
	if _, err := Listen(t.Context(), "192.0.2.1:0", ListenConfig{}); err == nil {
		t.Error("it listens on an address that isn't ours")
	}
}

type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.address))
}

func TestSharer(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5":                "192.0.2.1/32",
		"[::ffff:192.0.2.1]:5":       "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:5":   "2001:db8:1:2::/64",
		"[fe80::1:2:3:4%eth0]:5":     "fe80::/64",
		"[2001:db8:1:2:ffff::ff]:77": "2001:db8:1:2::/64",
	} {
		if got := sharer(from{address: address}).String(); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}
