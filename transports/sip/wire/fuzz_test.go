package wire

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
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
