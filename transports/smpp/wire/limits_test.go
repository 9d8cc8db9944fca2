package wire

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// TestWindowIsFirstComeFirstServed: the window is never overrun, and who came
// first goes first.
func TestWindowIsFirstComeFirstServed(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 2}}, accept, func(t *testing.T, s *stage) {
		var done []chan result
		for i := range 20 {
			done = append(done, s.do(submit(fmt.Sprint(i))))
			synctest.Wait()
		}
		for i := range 20 {
			p := s.peer.next()
			if text := string(p.Body.(*Short).Text); text != fmt.Sprint(i) {
				t.Fatalf("%s came, want %d", text, i)
			}
			if i%2 == 0 {
				continue // two at once
			}
			s.peer.expectNothing()
			s.peer.send(submitResp(p.Sequence-1), submitResp(p.Sequence))
		}
		for _, d := range done {
			if r := <-d; r.err != nil {
				t.Error(r.err)
			}
		}
	})
}

// TestWaitersThatGiveUp leave the queue, and don't keep a place in the window.
func TestWaitersThatGiveUp(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1}}, accept, func(t *testing.T, s *stage) {
		first := s.do(submit("first"))
		p := s.peer.next()
		ctx, cancel := context.WithCancel(t.Context())
		var given []chan result
		for range 5 {
			given = append(given, s.doWith(ctx, submit("given up")))
		}
		synctest.Wait()
		last := s.do(submit("last"))
		synctest.Wait()
		cancel()
		for _, d := range given {
			if r := <-d; !errors.Is(r.err, ErrUnsent) || !errors.Is(r.err, context.Canceled) {
				t.Error(r.err)
			}
		}
		if r := <-s.doWith(ctx, submit("too late")); !errors.Is(r.err, ErrUnsent) {
			t.Error(r.err)
		}
		s.peer.send(submitResp(p.Sequence))
		<-first
		p = s.peer.next()
		if text := string(p.Body.(*Short).Text); text != "last" {
			t.Errorf("%s came", text)
		}
		s.peer.send(submitResp(p.Sequence))
		<-last
	})
}

// TestTurnThatCameMeanwhile: who gives up in the moment in which it is its turn
// has sent the request all the same.
func TestTurnThatCameMeanwhile(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1}}, accept, func(t *testing.T, s *stage) {
		held, _, err := s.enter(submit("first"), nil)
		_, late, _ := s.enter(submit("second"), nil)
		if held == nil || late == nil {
			t.Fatal("the window isn't one", err)
		}
		s.peer.next()
		s.peer.send(submitResp(1))
		s.peer.expect(pdu.SubmitSMID, ROK, 2)
		if c, err := s.withdraw(late, context.Canceled); c == nil || err != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestRate(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1000, Rate: 20}}, accept, func(t *testing.T, s *stage) {
		go func() {
			for p := range s.peer.packets {
				s.peer.send(submitResp(p.Sequence))
			}
		}()
		began := time.Now()
		var done []chan result
		for range 41 {
			done = append(done, s.do(submit("paced")))
		}
		for _, d := range done {
			<-d
		}
		if took := time.Since(began); took < 1900*time.Millisecond || took > 2*time.Second {
			t.Errorf("41 took %s at 20 a second", took)
		}
		time.Sleep(5 * time.Second)
		began = time.Now()
		for range 3 {
			if r := <-s.do(submit("no burst after a pause")); r.err != nil {
				t.Error(r.err)
			}
		}
		if took := time.Since(began); took < 80*time.Millisecond {
			t.Errorf("3 took %s", took)
		}
		<-s.do(&Query{MessageID: "not paced"})
	})
}

func TestSlow(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1000}}, accept, func(t *testing.T, s *stage) {
		go func() {
			for p := range s.peer.packets {
				s.peer.send(Packet{ID: ResponseTo(p.ID), Sequence: p.Sequence})
			}
		}()
		s.Slow(time.Second)
		s.Slow(time.Millisecond)
		began := time.Now()
		<-s.do(&Query{MessageID: "at once"})
		if took := time.Since(began); took > 0 {
			t.Errorf("a query took %s", took)
		}
		<-s.do(submit("later"))
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestLimitLetsMoreOut(t *testing.T) {
	onStage(t, Config{Limits: Limits{Window: 1}}, accept, func(t *testing.T, s *stage) {
		for range 5 {
			s.do(submit("waits"))
		}
		s.peer.next()
		s.peer.expectNothing()
		s.Limit(Limits{Window: 4})
		for range 3 {
			s.peer.next()
		}
		s.peer.expectNothing()
	})
}

// TestThrottled: what is too much is refused, and nothing else waits for that.
func TestThrottled(t *testing.T) {
	onStage(t, Config{Limits: Limits{InWindow: 2}}, nil, func(t *testing.T, s *stage) {
		s.peer.send(submitted(1), submitted(2), submitted(3), samples["query_sm"])
		s.peer.expect(pdu.SubmitSMRespID, RThrottled, 3)
		s.peer.expect(pdu.QuerySMRespID, RThrottled, 9)
		s.peer.send(samples["enquire_link"])
		s.peer.expect(pdu.EnquireLinkRespID, ROK, 12)
		accept(s.Session, <-s.user.requests)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 1)
		s.peer.send(submitted(4), submitted(5))
		s.peer.expect(pdu.SubmitSMRespID, RThrottled, 5)
		accept(s.Session, <-s.user.requests)
		accept(s.Session, <-s.user.requests)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 2)
		s.peer.expect(pdu.SubmitSMRespID, ROK, 4)
		if n := s.counters.Throttled.Load(); n != 3 {
			t.Errorf("%d were counted", n)
		}
	})
}

func TestInRate(t *testing.T) {
	onStage(t, Config{Limits: Limits{InRate: 10}}, accept, func(t *testing.T, s *stage) {
		taken := func(n int) (ok int) {
			for i := range n {
				s.peer.send(submitted(uint32(i)))
				if p := s.peer.next(); p.Status == ROK {
					ok++
				} else if p.Status != RThrottled {
					t.Error(StatusName(p.Status))
				}
			}
			return ok
		}
		time.Sleep(5 * time.Second)
		if n := taken(30); n < 10 || n > 11 {
			t.Errorf("%d of 30 at once were taken", n)
		}
		time.Sleep(time.Second)
		if n := taken(30); n != 10 {
			t.Errorf("%d were taken a second later", n)
		}
		s.peer.send(samples["query_sm"])
		s.peer.expect(pdu.QuerySMRespID, ROK, 9)
	})
}

func TestEnquireLink(t *testing.T) {
	onStage(t, Config{EnquireLink: 10 * time.Second, Response: 4 * time.Second}, accept, func(t *testing.T, s *stage) {
		s.bind()
		for range 3 {
			began := time.Now()
			p := s.peer.next()
			if after := time.Since(began); p.ID != pdu.EnquireLinkID || after < 10*time.Second || after > 11*time.Second {
				t.Fatalf("%s came after %s", Name(p.ID), after)
			}
			s.peer.send(Packet{ID: pdu.EnquireLinkRespID, Sequence: p.Sequence})
		}
		p := s.peer.next()
		s.peer.send(Packet{ID: pdu.GenericNACKID, Status: RInvCmdID, Sequence: p.Sequence}) // it is there
		s.peer.next()
		s.peer.send(submitted(5)) // so is who is too busy to answer
		s.peer.next()
		began := time.Now()
		s.peer.next()
		s.ends(ErrSilent)
		if after := time.Since(began); after < 14*time.Second || after > 15*time.Second {
			t.Errorf("it ended after %s", after)
		}
	})
}

// TestNoEnquireLinkBeforeBind: nobody is bound who could be asked.
func TestNoBind(t *testing.T) {
	onStage(t, Config{EnquireLink: time.Second, Bind: 10 * time.Second}, func(s *Session, p Packet) {
		s.Respond(p, RBindFail, nil, nil)
	}, func(t *testing.T, s *stage) {
		began := time.Now()
		s.peer.send(samples["bind_transceiver"])
		s.peer.expect(pdu.BindTransceiverRespID, RBindFail, 1)
		s.ends(ErrNoBind)
		if after := time.Since(began); after < 10*time.Second || after > 11*time.Second || len(s.peer.packets) > 0 {
			t.Errorf("it ended after %s", after)
		}
	})
}

func TestOurBind(t *testing.T) {
	onStage(t, Config{EnquireLink: time.Second, Bind: 5 * time.Second}, accept, func(t *testing.T, s *stage) {
		done := s.do(&Bind{Mode: pdu.BindTransmitterID, SystemID: "esme"})
		s.peer.expect(pdu.BindTransmitterID, ROK, 1)
		s.peer.send(Packet{ID: pdu.BindTransmitterRespID, Sequence: 1})
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		for range 10 {
			p := s.peer.next()
			s.peer.send(Packet{ID: pdu.EnquireLinkRespID, Sequence: p.Sequence})
		}
	})
}

func TestIdle(t *testing.T) {
	onStage(t, Config{EnquireLink: 10 * time.Second, Idle: time.Minute}, accept, func(t *testing.T, s *stage) {
		s.bind()
		time.Sleep(9 * time.Second)
		s.peer.send(submitted(1))
		s.peer.next()
		began := time.Now()
		for {
			p := s.peer.next()
			switch p.ID {
			case pdu.EnquireLinkID:
				s.peer.send(Packet{ID: pdu.EnquireLinkRespID, Sequence: p.Sequence})
			case pdu.UnbindID:
				if after := time.Since(began); after < time.Minute || after > 62*time.Second {
					t.Errorf("unbind after %s", after)
				}
				s.peer.send(Packet{ID: pdu.UnbindRespID, Sequence: p.Sequence})
				s.ends(ErrIdle)
				return
			}
		}
	})
}

// TestSequenceNumbers: they go round, and pass by those that wait.
func TestSequenceNumbers(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.last = maxSequence - 1
		s.probe.sequence = 1
		for _, want := range []uint32{maxSequence, 2, 3} {
			s.do(submit("waits"))
			s.peer.expect(pdu.SubmitSMID, ROK, want)
		}
		s.mu.Lock()
		s.last, s.probe.sequence = maxSequence-1, 0
		s.mu.Unlock()
		s.do(submit("one is free"))
		s.peer.expect(pdu.SubmitSMID, ROK, 1)
	})
}

// TestAlive: who is asked at once whether he is there, and isn't, has to go.
func TestAlive(t *testing.T) {
	onStage(t, Config{EnquireLink: time.Hour}, accept, func(t *testing.T, s *stage) {
		s.bind()
		for _, sign := range []func(sequence uint32){
			func(n uint32) { s.peer.send(Packet{ID: pdu.EnquireLinkRespID, Sequence: n}) },
			func(uint32) { s.peer.send(Packet{ID: pdu.SubmitSMRespID, Sequence: 77}) }, // any does
		} {
			alive := make(chan bool, 2)
			for range 2 {
				go func() { alive <- s.Alive(t.Context()) }()
			}
			p := s.peer.next()
			s.peer.expectNothing() // one question is enough
			sign(p.Sequence)
			if !<-alive || !<-alive {
				t.Error("a peer that is there isn't")
			}
			s.peer.send(Packet{ID: pdu.EnquireLinkRespID, Sequence: p.Sequence})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		go s.peer.next()
		if s.Alive(ctx) || time.Since(began) != time.Second {
			t.Errorf("after %s, a silent peer is there", time.Since(began))
		}
		s.ends(ErrSilent)
		if s.Alive(t.Context()) {
			t.Error("a peer of a session that has ended is there")
		}
	})
}

// TestNonsense: somebody who makes no sense at all isn't listened to for ever; who
// gets parameters wrong is.
func TestNonsense(t *testing.T) {
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.bind()
		for range 3 * maxNonsense {
			s.peer.sendRaw(frame(pdu.SubmitSMID, 0, "toolong\x00"))
			s.peer.expect(pdu.SubmitSMRespID, RInvSerTyp, 5)
		}
		nonsense := func(times int) {
			for range times {
				s.peer.sendRaw(frame(0x42, 0, ""))
				s.peer.expect(pdu.GenericNACKID, RInvCmdID, 5)
			}
		}
		for i := range uint32(3) {
			nonsense(maxNonsense - 1)
			s.peer.send(submitted(i))
			s.peer.expect(pdu.SubmitSMRespID, ROK, i)
		}
		nonsense(maxNonsense)
		s.ends(ErrFraming)
	})
}
