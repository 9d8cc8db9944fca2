package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/fiorix/go-smpp/smpp"
	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdufield"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutext"
	"github.com/linxGnu/gosmpp"
	gopdu "github.com/linxGnu/gosmpp/pdu"
)

// goSMPP are the PDUs that go-smpp reads and writes as the specification has
// them; its list of deliver_sm is wrong, and so is its query_sm_resp.
var goSMPP = map[pdu.ID]bool{
	pdu.GenericNACKID: true, pdu.UnbindID: true, pdu.UnbindRespID: true, pdu.EnquireLinkID: true, pdu.EnquireLinkRespID: true,
	pdu.BindReceiverID: true, pdu.BindReceiverRespID: true, pdu.BindTransmitterID: true, pdu.BindTransmitterRespID: true,
	pdu.BindTransceiverID: true, pdu.BindTransceiverRespID: true,
	pdu.SubmitSMID: true, pdu.SubmitSMRespID: true, pdu.DeliverSMRespID: true, pdu.QuerySMID: true,
	pdu.SubmitMultiID: true, pdu.SubmitMultiRespID: true,
}

// TestGoSMPPAgrees: what go-smpp reads of our PDUs, and writes again, is the
// same to the octet.
func TestGoSMPPAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		for id := range goSMPP {
			p := randomPacket(r, id)
			switch b := p.Body.(type) {
			case *Multi:
				b.Lists = nil // it reads none
			case *MultiResp:
				b.Failed = nil // it writes a NUL behind error_status_code
			}
			p.Status = ROK
			p.TLVs = p.TLVs[:min(1, len(p.TLVs))] // it writes several in any order
			ours := encoded(t, p)
			if len(ours) > pdu.MaxSize || p.IsResponse() && p.Body == nil && known[kindOf(id)].layout != nil {
				continue // it has no larger ones, and none without a body
			}
			decoded, err := pdu.Decode(bytes.NewReader(ours))
			if err != nil {
				t.Fatalf("%s: %v", Name(id), err)
			}
			var theirs bytes.Buffer
			if err := decoded.SerializeTo(&theirs); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(theirs.Bytes(), ours) {
				t.Fatalf("%s: ours\n%stheirs\n%s", Name(id), hex.Dump(ours), hex.Dump(theirs.Bytes()))
			}
		}
	}
}

// TestWeReadGoSMPP: what its own constructors make.
func TestWeReadGoSMPP(t *testing.T) {
	p := pdu.NewSubmitSM(nil)
	f := p.Fields()
	for name, value := range map[pdufield.Name]any{
		pdufield.SourceAddr: "ACME", pdufield.SourceAddrTON: 5, pdufield.DestinationAddr: "447700900001",
		pdufield.RegisteredDelivery: 1, pdufield.ShortMessage: pdutext.UCS2("Привет"),
	} {
		if err := f.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := p.SerializeTo(&b); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := &Short{
		Of: pdu.SubmitSMID, Source: Address{5, 0, "ACME"}, Destination: Address{Number: "447700900001"},
		RegisteredDelivery: 1, DataCoding: 8, Text: pdutext.UCS2("Привет").Encode(),
	}
	if !reflect.DeepEqual(got.Body, want) {
		t.Errorf("%+v, want %+v", got.Body, want)
	}
}

// TestGosmppAgrees: what gosmpp reads of our PDUs, and writes again, is the same.
func TestGosmppAgrees(t *testing.T) {
	for name, p := range samples {
		if p.IsResponse() && p.Body == nil && known[kindOf(p.ID)].layout != nil {
			continue // it wants a body
		}
		decoded, err := gopdu.Parse(bytes.NewReader(encoded(t, p)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs := gopdu.NewBuffer(nil)
		decoded.Marshal(theirs)
		back, err := Decode(theirs.Bytes())
		if err != nil || len(back.TLVs) != len(p.TLVs) {
			t.Errorf("%s: %+v, %v", name, back, err)
			continue
		}
		for _, tlv := range p.TLVs {
			if value, ok := back.TLVs.Get(tlv.Tag); !ok || !bytes.Equal(value, tlv.Value) {
				t.Errorf("%s: %s became %x", name, tlv.Tag.Hex(), value)
			}
		}
		back.TLVs = p.TLVs // it writes several in any order
		if !reflect.DeepEqual(back, p) {
			t.Errorf("%s: %+v\nbecame %+v", name, p.Body, back.Body)
		}
	}
}

// serving lets sessions with a user in until the test ends.
func serving(t testing.TB, c Config, u Handler) string {
	t.Helper()
	return served(t, ListenConfig{}, c, u).Addr().String()
}

// TestGoSMPPTalks: its transceiver binds, submits and unbinds.
func TestGoSMPPTalks(t *testing.T) {
	u := newUser(accept)
	tx := &smpp.Transceiver{Addr: serving(t, Config{}, u), User: "esme", Passwd: "secret"}
	if status := <-tx.Bind(); status.Status() != smpp.Connected {
		t.Fatal(status.Error())
	}
	sm, err := tx.Submit(&smpp.ShortMessage{Src: "12345", Dst: "447700900001", Text: pdutext.Raw("hello")})
	if err != nil || sm.RespID() != "abc" {
		t.Errorf("%v, %+v", err, sm)
	}
	if err := tx.Close(); err != nil {
		t.Error(err)
	}
	if why := <-u.closed; !errors.Is(why, ErrUnbound) && !errors.Is(why, ErrPeer) {
		t.Error(why)
	}
}

// TestGosmppTalks: its session binds, submits, and takes a deliver_sm of ours.
func TestGosmppTalks(t *testing.T) {
	responses, delivered := make(chan *gopdu.SubmitSMResp, 1), make(chan *gopdu.DeliverSM, 1)
	outcome := make(chan error, 1)
	u := newUser(func(s *Session, p Packet) {
		accept(s, p)
		if p.ID != pdu.SubmitSMID {
			return
		}
		go func() {
			r, err := s.Do(t.Context(), samples["deliver_sm"].Body, samples["deliver_sm"].TLVs)
			if err == nil && r.Status != ROK {
				err = errors.New(StatusName(r.Status))
			}
			outcome <- err
		}()
	})
	session, err := gosmpp.NewSession(
		gosmpp.TRXConnector(gosmpp.NonTLSDialer, gosmpp.Auth{SMSC: serving(t, Config{}, u), SystemID: "esme", Password: "secret"}),
		gosmpp.Settings{
			ReadTimeout: 10 * time.Second, EnquireLink: 5 * time.Second,
			OnPDU: func(p gopdu.PDU, _ bool) {
				switch p := p.(type) {
				case *gopdu.SubmitSMResp:
					responses <- p
				case *gopdu.DeliverSM:
					delivered <- p
				}
			},
		}, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	sm := gopdu.NewSubmitSM().(*gopdu.SubmitSM)
	if err := session.Transceiver().Submit(sm); err != nil {
		t.Fatal(err)
	}
	if p := <-responses; p.MessageID != "abc" || !p.IsOk() {
		t.Errorf("%+v", p)
	}
	if p := <-delivered; p.SourceAddr.Address() != "447700900001" || p.EsmClass != 4 {
		t.Errorf("%+v", p)
	}
	if err := <-outcome; err != nil {
		t.Error(err)
	}
}

// TestTwoOfOurs: a session of ours on each side.
func TestTwoOfOurs(t *testing.T) {
	smsc := newUser(accept)
	conn, err := net.Dial("tcp", serving(t, Config{}, smsc))
	if err != nil {
		t.Fatal(err)
	}
	esme := newUser(accept)
	s := NewSession(conn, Config{Limits: Limits{Window: 50}}, esme)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.Run(t.Context())
	}()
	if _, err := s.Do(t.Context(), &Bind{Mode: pdu.BindTransceiverID}, nil); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error, 500)
	for range cap(outcomes) {
		go func() {
			_, err := s.Do(t.Context(), submit("hello"), nil)
			outcomes <- err
		}()
	}
	for range cap(outcomes) {
		if err := <-outcomes; err != nil {
			t.Error(err)
		}
	}
	if err := s.Unbind(t.Context()); err != nil {
		t.Error(err)
	}
	<-over
	for who, u := range map[string]*user{"esme": esme, "smsc": smsc} {
		if why := <-u.closed; !errors.Is(why, ErrUnbound) {
			t.Errorf("%s: %v", who, why)
		}
	}
	if !s.RemoteAddr().IsValid() || !s.LocalAddr().IsValid() {
		t.Error("it has no addresses")
	}
	if _, err := io.ReadAll(conn); err == nil {
		t.Error("the connection is open")
	}
}
