//go:build process

package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/imgate/imgate/transports/sip/ua"
)

// copied is a packet as HEP3 tells it.
type copied struct {
	source, target string
	payload        string
}

// Chunks of HEP3, all of the generic vendor.
const (
	hepSource     = 3
	hepTarget     = 4
	hepSourcePort = 7
	hepTargetPort = 8
	hepPayload    = 15
)

// readHEP takes a packet in HEP3 apart (draft-homer-hep3, §4).
func readHEP(data []byte) (c copied, err error) {
	if len(data) < 6 || string(data[:4]) != "HEP3" || int(binary.BigEndian.Uint16(data[4:])) != len(data) {
		return c, fmt.Errorf("%q is not HEP3", data)
	}
	chunks := map[uint16][]byte{}
	for rest := data[6:]; len(rest) > 0; {
		if len(rest) < 6 || int(binary.BigEndian.Uint16(rest[4:])) > len(rest) || binary.BigEndian.Uint16(rest[4:]) < 6 {
			return c, fmt.Errorf("a chunk is longer than its packet")
		}
		length := binary.BigEndian.Uint16(rest[4:])
		chunks[binary.BigEndian.Uint16(rest[2:])] = rest[6:length]
		rest = rest[length:]
	}
	at := func(address, port uint16) string {
		return fmt.Sprintf("%s:%d", net.IP(chunks[address]), binary.BigEndian.Uint16(append(chunks[port], 0, 0)))
	}
	return copied{at(hepSource, hepSourcePort), at(hepTarget, hepTargetPort), string(chunks[hepPayload])}, nil
}

// TestObservers: what is sent and received is copied to Homer and told to an
// OpenTelemetry collector, once the operator wants it and not before.
func TestObservers(t *testing.T) {
	homer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer homer.Close()
	requests := make(chan *coltracepb.ExportTraceServiceRequest, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		told := &coltracepb.ExportTraceServiceRequest{}
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, told) != nil {
			t.Errorf("%s isn't OTLP", r.URL.Path)
		}
		requests <- told
	}))
	defer collector.Close()

	s := newServer(t, "")
	s.start()
	s.importAccounts([]string{"alice", "bob"})
	bob := dial(t, s, "bob", func(ua.Incoming) bool { return true })
	defer bob.Close()
	register(t, bob)
	alice := dial(t, s, "alice", nil)
	defer alice.Close()
	expectUnobserved := func(text string) {
		t.Helper()
		expect(t, alice, "bob", text, 200)
		_ = homer.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, _, err := homer.ReadFrom(make([]byte, 65536)); err == nil {
			t.Errorf("%d octets are sent to Homer, whom nobody has configured", n)
		}
		select {
		case told := <-requests:
			t.Errorf("a collector that nobody has configured is told %v", told)
		default:
		}
	}
	expectUnobserved("nobody looks")

	unobserved := ""
	s.reconfigure(func(text string) string {
		unobserved = text
		return text + fmt.Sprintf("observers:\n  homer: {plugin: hep, server: \"udp://%s\"}\n  traces: {plugin: otlp, endpoint: %q}\n",
			homer.LocalAddr(), collector.URL)
	})
	s.imgate("reload")
	expect(t, alice, "bob", "somebody looks", 200)
	checkHomer(t, homer, s.sip, alice.Local().String(), bob.Local().String())
	checkTrace(t, s, requests)

	s.reconfigure(func(string) string { return unobserved })
	s.imgate("reload")
	drain(homer, requests)
	expectUnobserved("nobody looks any more")
}

// checkHomer reads what Homer is sent until both sides of a message are there:
// from its sender to us and from us to its recipient, and the answers.
func checkHomer(t *testing.T, homer net.PacketConn, us, alice, bob string) {
	t.Helper()
	missing := map[string]string{
		alice + " > " + us: "MESSAGE sip:bob@sip.example.com SIP/2.0\r\n",
		us + " > " + bob:   "MESSAGE sip:",
		bob + " > " + us:   "SIP/2.0 200 ",
		us + " > " + alice: "SIP/2.0 200 ",
	}
	_ = homer.SetReadDeadline(time.Now().Add(quickly))
	data := make([]byte, 65536)
	for len(missing) > 0 {
		n, _, err := homer.ReadFrom(data)
		if err != nil {
			t.Errorf("Homer isn't sent %q: %v", missing, err)
			return
		}
		c, err := readHEP(bytes.Clone(data[:n]))
		if err != nil {
			t.Error(err)
			return
		}
		way := c.source + " > " + c.target
		if start, ok := missing[way]; ok && strings.HasPrefix(c.payload, start) {
			delete(missing, way)
		}
	}
}

// checkTrace reads what the collector is told until all spans of a message are
// there. They are of one trace and don't say what it says.
func checkTrace(t *testing.T, s *server, requests <-chan *coltracepb.ExportTraceServiceRequest) {
	t.Helper()
	missing := map[string]bool{"message": true, "policy": true, "authorize": true, "store": true, "attempt": true, "delivery": true}
	traces := map[string]bool{}
	for deadline := time.After(quickly); len(missing) > 0; {
		select {
		case <-deadline:
			t.Errorf("the collector isn't told of %v", missing)
			return
		case told := <-requests:
			if strings.Contains(told.String(), "somebody looks") {
				t.Errorf("a trace has the text of its message: %v", told)
			}
			for _, of := range told.ResourceSpans {
				for _, scope := range of.ScopeSpans {
					for _, span := range scope.Spans {
						delete(missing, span.Name)
						traces[string(span.TraceId)] = true
					}
				}
			}
		}
	}
	if len(traces) != 1 {
		t.Errorf("the spans of one message are of %d traces", len(traces))
	}
	if n := s.metric(`imgate_otlp_dropped_spans_total{plugin="otlp",section="traces"}`); n != 0 {
		t.Errorf("%g spans are dropped", n)
	}
}

// drain takes away what was sent before the observers were closed.
func drain(homer net.PacketConn, requests <-chan *coltracepb.ExportTraceServiceRequest) {
	for err := error(nil); err == nil; {
		_ = homer.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _, err = homer.ReadFrom(make([]byte, 65536))
	}
	for len(requests) > 0 {
		<-requests
	}
}
