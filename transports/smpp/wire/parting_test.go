package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

func TestPeerUnbinds(t *testing.T) {
	onStage(t, Config{}, nil, func(t *testing.T, s *stage) {
		done := s.do(submit("under way"))
		s.peer.expect(pdu.SubmitSMID, ROK, 1)
		s.peer.send(submitted(1), submitted(2), Packet{ID: pdu.UnbindID, Sequence: 3}, submitted(4), Packet{ID: pdu.UnbindID, Sequence: 5}, samples["enquire_link"])
		s.peer.expect(pdu.SubmitSMRespID, RInvBndSts, 4)
		s.peer.expect(pdu.UnbindRespID, RInvBndSts, 5)
		s.peer.expect(pdu.EnquireLinkRespID, ROK, 12)
		if r := <-s.do(submit("too late")); !errors.Is(r.err, ErrUnsent) || !errors.Is(r.err, ErrUnbound) {
			t.Error(r.err)
		}
		select {
		case <-s.Done():
		default:
			t.Error("it isn't done")
		}
		accept(s.Session, <-s.user.requests)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 1)
		s.peer.send(submitResp(1))
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		s.peer.expectNothing()
		accept(s.Session, <-s.user.requests)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 2)
		s.peer.expect(pdu.UnbindRespID, ROK, 3)
		s.ends(ErrUnbound)
	})
}

// TestPeerUnbindsAndWaits: what never gets an answer doesn't keep it for ever.
func TestPeerUnbindsAndWaits(t *testing.T) {
	onStage(t, Config{Drain: 4 * time.Second}, nil, func(t *testing.T, s *stage) {
		done := s.do(submit("never answered"))
		s.peer.next()
		began := time.Now()
		s.peer.send(submitted(1), Packet{ID: pdu.UnbindID, Sequence: 2})
		s.peer.expect(pdu.UnbindRespID, ROK, 2)
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		s.ends(ErrUnbound)
		if r := <-done; !errors.Is(r.err, ErrNoAnswer) || !errors.Is(r.err, ErrUnbound) {
			t.Error(r.err)
		}
		accept(s.Session, <-s.user.requests)
		if s.counters.Lost.Load() != 1 {
			t.Error("the answer to nobody wasn't counted")
		}
	})
}

func TestUnbind(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1}}, nil, func(t *testing.T, s *stage) {
		s.user.answer = accept
		s.bind()
		synctest.Wait()
		s.user.answer = nil
		done, waits := s.do(submit("under way")), make(chan result, 1)
		s.peer.expect(pdu.SubmitSMID, ROK, 1)
		go func() {
			p, err := s.Do(t.Context(), submit("waits"), nil)
			waits <- result{p, err}
		}()
		s.peer.send(submitted(1))
		synctest.Wait()
		unbound := make(chan error, 1)
		go func() { unbound <- s.Unbind(t.Context()) }()
		go s.Unbind(t.Context()) // twice is once
		if r := <-waits; !errors.Is(r.err, ErrUnsent) {
			t.Error(r.err)
		}
		s.peer.send(submitted(2))
		s.peer.expect(pdu.SubmitSMRespID, RThrottled, 2)
		s.peer.send(submitResp(1))
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		s.peer.expectNothing()
		accept(s.Session, <-s.user.requests)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 1)
		p := s.peer.next()
		if p.ID != pdu.UnbindID {
			t.Fatal(Name(p.ID))
		}
		s.peer.send(Packet{ID: pdu.UnbindRespID, Sequence: p.Sequence})
		if err := <-unbound; err != nil {
			t.Error(err)
		}
		s.ends(ErrUnbound)
	})
}

// TestUnbindUnanswered: neither what is under way nor unbind is waited for
// without end.
func TestUnbindUnanswered(t *testing.T) {
	onStage(t, Config{Drain: 4 * time.Second, Response: 8 * time.Second}, accept, func(t *testing.T, s *stage) {
		s.bind()
		s.do(submit("never answered"))
		s.peer.next()
		began := time.Now()
		unbound := make(chan error, 1)
		go func() { unbound <- s.Unbind(t.Context()) }()
		if p := s.peer.next(); p.ID != pdu.UnbindID {
			t.Error(Name(p.ID))
		}
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("unbind came after %s", took)
		}
		<-unbound
		if took := time.Since(began); took < 12*time.Second || took > 14*time.Second {
			t.Errorf("it took %s", took)
		}
		s.ends(ErrUnbound)
	})
}

func TestUnbindGivenUp(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.bind()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Unbind(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		s.ends(ErrClosed)
	})
}

// TestBothUnbind: who has sent unbind still answers the other's.
func TestBothUnbind(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.bind()
		unbound := make(chan error, 1)
		go func() { unbound <- s.Unbind(t.Context()) }()
		if p := s.peer.next(); p.ID != pdu.UnbindID {
			t.Fatal(Name(p.ID))
		}
		s.peer.send(Packet{ID: pdu.UnbindID, Sequence: 7})
		s.peer.expect(pdu.UnbindRespID, ROK, 7)
		if err := <-unbound; err != nil {
			t.Error(err)
		}
		s.ends(ErrUnbound)
	})
}

func TestUnbindBeforeBind(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		if err := s.Unbind(t.Context()); err != nil {
			t.Error(err)
		}
		s.ends(ErrUnbound)
	})
}

func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end func(*stage)
		why error
	}{
		"close":        {func(s *stage) { s.Close() }, ErrClosed},
		"context":      {func(s *stage) { s.stop() }, ErrClosed},
		"peer":         {func(s *stage) { s.peer.Close() }, ErrPeer},
		"peer, in PDU": {func(s *stage) { s.peer.sendRaw([]byte{0, 0, 0, 20, 0}); s.peer.Close() }, ErrPeer},
		"peer, in body": {func(s *stage) {
			s.peer.sendRaw(frame(pdu.SubmitSMID, 0, "0123456789")[:20])
			s.peer.Close()
		}, ErrPeer},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Config{Limits: Limits{Window: 1}}, accept, func(t *testing.T, s *stage) {
				sent := s.do(submit("sent"))
				s.peer.next()
				waits := s.do(submit("waits"))
				synctest.Wait()
				c.end(s)
				s.ends(c.why)
				if r := <-sent; !errors.Is(r.err, ErrNoAnswer) || !errors.Is(r.err, c.why) {
					t.Error(r.err)
				}
				if r := <-waits; !errors.Is(r.err, ErrUnsent) {
					t.Error(r.err)
				}
				if r := <-s.do(submit("late")); !errors.Is(r.err, ErrUnsent) || !errors.Is(r.err, c.why) {
					t.Error(r.err)
				}
			})
		})
	}
}

// deaf runs a test with a session whose peer reads nothing by itself.
func deaf(t *testing.T, c Config, test func(t *testing.T, s *Session, peer net.Conn, u *user)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		u := newUser(accept)
		s := NewSession(ours, c, u)
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.Run(t.Context())
		}()
		test(t, s, theirs, u)
		theirs.Close()
		s.Close()
		<-over
	})
}

// TestUnsentIsExact: of what was queued, only what the peer can't have got whole
// may be sent again elsewhere.
func TestUnsentIsExact(t *testing.T) {
	size := len(frameOf(submitted(1)))
	for name, c := range map[string]struct {
		read int // octets that leave
		sent int // requests that are gone
	}{
		"nothing":        {0, 0},
		"half of one":    {size / 2, 0},
		"all but one":    {size - 1, 0},
		"one":            {size, 1},
		"one and a bit":  {size + 1, 1},
		"three":          {3 * size, 3},
		"three and most": {4*size - 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			deaf(t, Config{}, func(t *testing.T, s *Session, peer net.Conn, _ *user) {
				var done []chan error
				for range 5 {
					d := make(chan error, 1)
					done = append(done, d)
					go func() {
						_, err := s.Do(t.Context(), submit("hello"), nil)
						d <- err
					}()
					synctest.Wait()
				}
				if _, err := io.ReadFull(peer, make([]byte, c.read)); err != nil {
					t.Fatal(err)
				}
				peer.Close()
				for i, d := range done {
					want := ErrUnsent
					if i < c.sent {
						want = ErrNoAnswer
					}
					if err := <-d; !errors.Is(err, want) || errors.Is(err, ErrNoAnswer) == errors.Is(err, ErrUnsent) {
						t.Errorf("%d: %v, want %v", i, err, want)
					}
				}
			})
		})
	}
}

// TestPeerWhoDoesNotRead isn't read either, holds little memory, and loses the
// connection.
func TestPeerWhoDoesNotRead(t *testing.T) {
	deaf(t, Config{Write: 5 * time.Second}, func(t *testing.T, s *Session, peer net.Conn, u *user) {
		began := time.Now()
		enquiry := frameOf(Packet{ID: pdu.EnquireLinkID, Sequence: 1})
		sent := 0
		for {
			n, err := peer.Write(enquiry)
			if sent += n; err != nil {
				break
			}
		}
		if why := <-u.closed; !errors.Is(why, ErrUnread) {
			t.Error(why)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if sent < maxAnswers || sent > maxAnswers+readBuffer+2*len(enquiry) {
			t.Errorf("%d octets were taken", sent)
		}
	})
}

// TestSlowPeer: who reads slowly gets everything, and its pace.
func TestSlowPeer(t *testing.T) {
	deaf(t, Config{}, func(t *testing.T, s *Session, peer net.Conn, _ *user) {
		const n = 50000
		go func() {
			enquiry := frameOf(Packet{ID: pdu.EnquireLinkID, Sequence: 1})
			for range n {
				if _, err := peer.Write(enquiry); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for range n * pdu.HeaderLen / 4096 {
			if _, err := io.ReadFull(peer, make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		go io.Copy(io.Discard, peer)
		synctest.Wait()
	})
}

// TestLastWordsArrive: over a real connection, what we say last is not thrown
// away because of what we didn't read.
func TestLastWordsArrive(t *testing.T) {
	u := newUser(accept)
	conn, err := net.Dial("tcp", serving(t, Config{}, u))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := newPeer(t, conn)
	p.sendRaw(append(make([]byte, pdu.HeaderLen), make([]byte, 100<<10)...))
	p.expect(pdu.GenericNACKID, RInvCmdLen, 0)
	if _, open := <-p.packets; open {
		t.Error("more came")
	}
	conn.Close()
	if why := <-u.closed; !errors.Is(why, ErrFraming) {
		t.Error(why)
	}
}

// TestBothSidesSendMuch: neither stops reading because it has much to say, or
// they would wait for each other until one gives up.
func TestBothSidesSendMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other := net.Pipe()
		var run, do sync.WaitGroup
		payload := TLVs{{pdutlv.TagMessagePayload, make([]byte, 60000)}}
		for _, conn := range []net.Conn{one, other} {
			s := NewSession(conn, Config{Limits: Limits{Window: 50}}, answering{})
			run.Go(func() { s.Run(t.Context()) })
			for range 60 {
				do.Go(func() {
					if _, err := s.Do(t.Context(), &Short{Of: pdu.DataSMID}, payload); err != nil {
						t.Error(err)
					}
				})
			}
		}
		do.Wait()
		one.Close()
		run.Wait()
	})
}
