package wire

import (
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// TestResponseWithoutBody has no TLVs either: a peer would take them for the
// body.
func TestResponseWithoutBody(t *testing.T) {
	onStage(t, Config{}, func(s *Session, p Packet) {
		s.Respond(p, RBindFail, nil, TLVs{Uint8(TagScInterfaceVersion, 0x34)})
	}, func(t *testing.T, s *stage) {
		s.peer.send(samples["bind_transceiver"])
		if p := s.peer.expect(pdu.BindTransceiverRespID, RBindFail, 1); p.TLVs != nil {
			t.Errorf("%+v", p)
		}
		s.peer.send(samples["cancel_sm"])
		if p := s.peer.expect(pdu.CancelSMRespID, RBindFail, 10); len(p.TLVs) != 1 {
			t.Errorf("%+v", p)
		}
	})
}

// TestIgnore: who is ignored is no longer under way.
func TestIgnore(t *testing.T) {
	onStage(t, Config{Limits: Limits{InWindow: 1}}, func(s *Session, p Packet) { s.Ignore(p) }, func(t *testing.T, s *stage) {
		s.peer.send(submitted(1), submitted(2), samples["outbind"], samples["unbind"])
		s.peer.expect(pdu.UnbindRespID, ROK, 2)
		s.ends(ErrUnbound)
		if len(s.user.requests) != 3 {
			t.Errorf("%d requests", len(s.user.requests))
		}
	})
}

// TestLargePDU: message_payload as large as it gets.
func TestLargePDU(t *testing.T) {
	large := Packet{ID: pdu.DataSMID, Sequence: 1, Body: samples["data_sm"].Body, TLVs: TLVs{{pdutlv.TagMessagePayload, make([]byte, 65535)}}}
	onStage(t, Config{}, accept, func(t *testing.T, s *stage) {
		s.peer.send(large, large)
		for range 2 {
			s.peer.expect(pdu.DataSMRespID, ROK, 1)
			if p := <-s.user.requests; len(p.TLVs) != 1 || len(p.TLVs[0].Value) != 65535 {
				t.Errorf("%d TLVs came", len(p.TLVs))
			}
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Do(t.Context(), large.Body, large.TLVs)
			done <- err
		}()
		if p := s.peer.next(); len(p.TLVs) != 1 || len(p.TLVs[0].Value) != 65535 {
			t.Errorf("%d TLVs went out", len(p.TLVs))
		}
		s.peer.send(Packet{ID: pdu.DataSMRespID, Sequence: 1})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
