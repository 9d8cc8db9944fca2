package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"testing"
	"time"
)

// FuzzPDU: nothing that comes does harm, and what we can read, we write again so
// that it is read the same.
func FuzzPDU(f *testing.F) {
	for _, p := range samples {
		f.Add(encoded(f, p))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		p, err := Decode(b)
		if !bytes.Equal(b, before) {
			t.Fatalf("%x was changed to %x", before, b)
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status == ROK || p.Body != nil || p.TLVs != nil {
				t.Fatalf("%v, %+v", err, p)
			}
			return
		}
		again, err := Encode(nil, &p)
		if p.Body == nil && p.TLVs != nil && known[kindOf(p.ID)].layout != nil {
			return // TLVs without a body: we forgive that, and don't do it
		}
		if err != nil {
			t.Fatalf("%+v can't be written: %v", p, err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(back, p) {
			t.Fatalf("%+v became %+v, %v", p, back, err)
		}
	})
}

// FuzzTLV: the same of what follows the mandatory parameters.
func FuzzTLV(f *testing.F) {
	for _, p := range samples {
		b, err := appendTLVs(nil, p.TLVs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x04, 0x24, 0, 5, 'h', 'e', 'l', 'l'})
	f.Fuzz(func(t *testing.T, b []byte) {
		tlvs, err := decodeTLVs(b)
		if err != nil {
			return
		}
		for _, tlv := range tlvs {
			if value, ok := tlvs.Get(tlv.Tag); !ok || value == nil {
				t.Fatalf("%s isn't there", tlv.Tag.Hex())
			}
			tlvs.Uint(tlv.Tag)
			tlvs.Text(tlv.Tag)
		}
		again, err := appendTLVs(nil, tlvs)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}

// FuzzSession: whatever a peer says, a session ends when it hangs up, and every
// request has its outcome.
func FuzzSession(f *testing.F) {
	var all []byte
	for _, p := range samples {
		f.Add(encoded(f, p))
		all = append(all, encoded(f, p)...)
	}
	f.Add(all)
	f.Add(bytes.Repeat(encoded(f, samples["submit_sm"]), 50))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		u := newUser(accept)
		u.requests = make(chan Packet, len(b)/16+1)
		s := NewSession(ours, Config{MaxPDU: 2000, Drain: 10 * time.Millisecond, Limits: Limits{InWindow: 3}}, u)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.Run(ctx)
		}()
		go io.Copy(io.Discard, theirs)
		outcome := make(chan error, 1)
		go func() {
			_, err := s.Do(ctx, submit("ours"), nil)
			outcome <- err
		}()
		_, _ = theirs.Write(b) // fails when the session has seen enough
		theirs.Close()
		<-over
		<-outcome
		if ctx.Err() != nil {
			t.Fatal("it didn't end by itself")
		}
		if s.gate.inUse != 0 || len(s.calls) != 0 || s.underWay != 0 || len(u.closed) != 1 {
			t.Fatalf("%d in use, %d calls, %d under way", s.gate.inUse, len(s.calls), s.underWay)
		}
	})
}
