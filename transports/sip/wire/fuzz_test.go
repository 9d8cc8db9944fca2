package wire

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzWebSocketMessage: what comes in a WebSocket is read as what comes in a
// datagram, but for what may be missing and what may be too much.
func FuzzWebSocketMessage(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.sip"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(hello("a") + hello("b")))
	f.Add([]byte("\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > MaxMessage {
			return
		}
		request, response, refusal := parseWhole(data, 64<<10)
		if request == nil && response == nil && refusal == nil {
			t.Fatal("nothing came of it")
		}
		asDatagram, answer, why := Parse(data, 64<<10)
		if refusal == nil && why != nil || (request == nil) != (asDatagram == nil) || refusal == nil && (response == nil) != (answer == nil) {
			t.Fatalf("%v, as a datagram %v", refusal, why)
		}
		if refusal != nil || request == nil {
			return
		}
		if !bytes.HasSuffix(data, request.Body) || !bytes.Equal(request.Body, asDatagram.Body) {
			t.Errorf("body %q", request.Body)
		}
	})
}

// FuzzWebSocketFrames: whatever comes behind the handshake, a stranger's
// connection has ended when its time is over, and holds nothing.
func FuzzWebSocketFrames(f *testing.F) {
	f.Add(frame(frameText, hello("a")))
	f.Add(append(frame(0x01, hello("a")[:50]), frame(0x89, "between")...))
	f.Add(frame(frameBinary, "\r\n\r\n"))
	f.Add(frame(frameClose, "\x03\xe8bye"))
	f.Add([]byte("\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		inBubbleOf(t, "ws", Config{Workers: 1}, func(t *testing.T, b *bubble) {
			p := b.openedSocket()
			go p.Conn.Write(data) // not all of it is read
			go io.Copy(io.Discard, p.Reader)
			time.Sleep(2 * time.Minute)
			if n := b.Counts(); n.Connections != 0 {
				t.Errorf("%+v", n)
			}
			p.Close()
		})
	})
}
