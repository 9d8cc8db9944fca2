package ua

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/message"
)

// TestUnreached: whoever can't connect is told what to do about it.
func TestUnreached(t *testing.T) {
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0)
	unknown.StartTLS()
	defer unknown.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 2048))
			conn.Close()
		}
	}()
	certified := unknown.Listener.Addr().String()
	for want, node := range map[string]Config{
		"the certificate of " + certified + " is refused; --insecure takes any: x509: ": {TLS: certified},
		"(TLS) hangs up: does it speak TLS at this port?":                               {TLS: plain.Addr().String()},
		"(WSS) hangs up: does it speak TLS at this port?":                               {WSS: plain.Addr().String()},
	} {
		node.Address = message.Address{User: "alice", Host: "sip.example.com"}
		agent, err := Dial(t.Context(), node)
		if err == nil {
			agent.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
