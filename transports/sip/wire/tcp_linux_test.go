package wire

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUserTimeout(t *testing.T) {
	e := openTCP(t, Config{}, func(_ context.Context, x *Exchange) { x.Answer(Reply{Status: 200}) })
	p := dialTCP(t, e)
	p.say(hello("a"))
	p.hear()
	raw, err := e.connections.all()[0].conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	var failed error
	err = raw.Control(func(fd uintptr) {
		got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	})
	if err != nil || failed != nil || time.Duration(got)*time.Millisecond != unacknowledged {
		t.Errorf("%d, %v, %v", got, err, failed)
	}
}
