//go:build process

package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// What the server is put under, all at once.
const (
	usualPressure   = time.Minute // PRESSURE says otherwise
	idleConnections = 5000        // at any time: the server closes those that say nothing
	idleAddresses   = 50
	slowReaders     = 20
	garbageSenders  = 4
	garbageEvery    = time.Millisecond // per sender, in bursts of garbageBurst
	garbageBurst    = 4

	goodEvery  = 250 * time.Millisecond
	goodWithin = time.Second
	// mostMemory is what the server may hold more than before: connections of
	// 16 KiB, what floods leave behind, and the collector's headroom.
	mostMemory = 250 << 20
	// mostGrowth is between the middle of the flood and its end: what is bounded
	// has found its bound by then.
	mostGrowth = 40 << 20
)

// TestPressure lets garbage from changing addresses, idle connections and
// clients that don't read at the server for a minute, or as long as PRESSURE says. Meanwhile a good client
// gets each of its answers within a second, and memory stays bounded.
func TestPressure(t *testing.T) {
	s := newServer(t, "")
	s.start()
	s.importAccounts(append(numbered("slow", slowReaders), "good", "friend"))
	before := memoryOf(t, s.process.Process.Pid)

	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer func() {
		stop()
		all.Wait()
	}()
	open := openIdle(t, s.sip)
	for i, mine := range slices.Collect(slices.Chunk(open, idleConnections/idleAddresses)) {
		all.Go(func() { keepIdle(ctx, s.sip, i, mine) })
	}
	feedSlowReaders(t, ctx, &all, s)
	var sent atomic.Int64
	for range garbageSenders {
		all.Go(func() { sendGarbage(ctx, s.sip, &sent) })
	}

	worst, answered, middle := beGood(t, s, pressureTime(t))
	after := memoryOf(t, s.process.Process.Pid)
	t.Logf("%d garbage datagrams and streams; %d good messages, the slowest answered in %v; memory %d MiB before, %d in the middle, %d after",
		sent.Load(), answered, worst, before>>20, middle>>20, after>>20)
	if after > before+mostMemory {
		t.Errorf("memory grew from %d to %d MiB", before>>20, after>>20)
	}
	if after > middle+mostGrowth {
		t.Errorf("memory still grows: %d MiB in the middle, %d after", middle>>20, after>>20)
	}
}

func pressureTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PRESSURE")
	if text == "" {
		return usualPressure
	}
	lasts, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PRESSURE: %v", err)
	}
	return lasts
}

// beGood sends a message after the other to a registered friend and wants each
// answered in time.
func beGood(t *testing.T, s *server, lasts time.Duration) (worst time.Duration, answered int, middle int64) {
	friend := dial(t, s, "friend", func(ua.Incoming) bool { return true })
	defer friend.Close()
	registerAll(t, []*ua.Agent{friend}, false)
	good := dial(t, s, "good", nil)
	defer good.Close()
	to := message.Address{User: "friend", Host: "sip.example.com"}
	began := time.Now()
	for time.Since(began) < lasts {
		if middle == 0 && time.Since(began) > lasts/2 {
			middle = memoryOf(t, s.process.Process.Pid)
		}
		asked := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		result, err := good.Message(ctx, to, "text/plain", []byte("hello"), ua.Options{})
		cancel()
		took := time.Since(asked)
		worst = max(worst, took)
		if err != nil || result.Code != 200 || took > goodWithin {
			t.Errorf("a good message is answered %d after %v: %v", result.Code, took, err)
		}
		answered++
		time.Sleep(goodEvery) // the pace of a person
	}
	return worst, answered, middle
}

// source is one of many addresses of this machine.
func source() netip.Addr {
	n := rand.Uint32()
	return netip.AddrFrom4([4]byte{127, byte(1 + n%200), byte(n >> 8), byte(1 + (n>>16)%250)})
}

// openIdle opens connections that say nothing, the same number from each address.
func openIdle(t *testing.T, server string) []net.Conn {
	t.Helper()
	open := make([]net.Conn, 0, idleConnections)
	for i := range idleConnections {
		conn, err := dialIdle(server, i*idleAddresses/idleConnections)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, conn)
	}
	return open
}

func dialIdle(server string, address int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+address))}}
	return dialer.Dial("tcp", server)
}

// keepIdle opens connections anew that the server has closed, until ctx ends.
func keepIdle(ctx context.Context, server string, address int, conns []net.Conn) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, c := range conns {
				c.Close()
			}
			return
		case <-ticker.C:
		}
		for i, c := range conns {
			if isOpen(c) {
				continue
			}
			c.Close()
			if again, err := dialIdle(server, address); err == nil { // else it is tried again
				conns[i] = again
			}
		}
	}
}

func isOpen(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Microsecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// sendGarbage sends what is no SIP, half of SIP, and SIP without credentials,
// over UDP and TCP, each time from another address.
func sendGarbage(ctx context.Context, server string, sent *atomic.Int64) {
	ticker := time.NewTicker(garbageEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for range garbageBurst {
			spit(server, garbage())
			sent.Add(1)
		}
	}
}

func spit(server string, data []byte) {
	from := source().AsSlice()
	dialer := net.Dialer{Timeout: time.Second, LocalAddr: &net.UDPAddr{IP: from}}
	network := "udp"
	if rand.IntN(20) == 0 {
		network, dialer.LocalAddr = "tcp", &net.TCPAddr{IP: from}
	}
	conn, err := dialer.Dial(network, server)
	if err != nil {
		return // it is full: that is an answer too
	}
	defer conn.Close()
	_, _ = conn.Write(data)
}

func garbage() []byte {
	noise := make([]byte, 1+rand.IntN(1200))
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	switch rand.IntN(4) {
	case 0:
		return noise
	case 1:
		return append([]byte("MESSAGE sip:good@sip.example.com SIP/2.0\r\nVia: "), noise...)
	case 2:
		return append([]byte("MESSAGE sip:good@sip.example.com SIP/2.0\r\nContent-Length: 60000\r\n\r\n"), noise...)
	}
	id := strconv.FormatUint(rand.Uint64(), 36)
	return fmt.Appendf(nil, "MESSAGE sip:good@sip.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK%s\r\n"+
		"From: <sip:%s@sip.example.com>;tag=%s\r\nTo: <sip:good@sip.example.com>\r\nCall-ID: %s\r\nCSeq: 1 MESSAGE\r\n"+
		"Max-Forwards: 70\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi", id, id, id, id)
}

// feedSlowReaders registers clients over TCP that then read nothing any more,
// and has messages sent to them without end.
func feedSlowReaders(t *testing.T, ctx context.Context, all *sync.WaitGroup, s *server) {
	t.Helper()
	for _, user := range numbered("slow", slowReaders) {
		conn := registerOverTCP(t, s.sip, user)
		context.AfterFunc(ctx, func() { conn.Close() })
	}
	all.Go(func() {
		agent := dial(t, s, "good", nil)
		defer agent.Close()
		for n := 0; ctx.Err() == nil; n++ {
			to := message.Address{User: fmt.Sprintf("slow%03d", n%slowReaders), Host: "sip.example.com"}
			asking, cancel := context.WithTimeout(ctx, 20*time.Second)
			// What becomes of it isn't this test's question: nobody reads it.
			_, _ = agent.Message(asking, to, "text/plain", []byte(strings.Repeat("x", 1000)), ua.Options{})
			cancel()
		}
	})
}

// registerOverTCP registers with a connection of its own and returns it.
func registerOverTCP(t *testing.T, server, user string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	answers := bufio.NewReader(conn)
	request := func(cseq int, authorization string) string {
		return fmt.Sprintf("REGISTER sip:sip.example.com SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK%s%d\r\n"+
			"From: <sip:%[2]s@sip.example.com>;tag=1\r\nTo: <sip:%[2]s@sip.example.com>\r\nCall-ID: %[2]s\r\nCSeq: %[3]d REGISTER\r\n"+
			"Contact: <sip:%[2]s@%[1]s;transport=tcp>\r\nMax-Forwards: 70\r\nExpires: 3600\r\n%[4]sContent-Length: 0\r\n\r\n",
			conn.LocalAddr(), user, cseq, authorization)
	}
	status, header := exchange(t, conn, answers, request(1, ""))
	if status != 401 {
		t.Fatalf("a registration without credentials is answered %d", status)
	}
	status, _ = exchange(t, conn, answers, request(2, credentialsFor(t, header, user)))
	if status != 200 {
		t.Fatalf("a registration is answered %d", status)
	}
	return conn
}

// exchange sends a request and reads its answer, which has no body.
func exchange(t *testing.T, conn net.Conn, answers *bufio.Reader, request string) (status int, header []string) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		header = append(header, line)
	}
	if _, err := fmt.Sscanf(header[0], "SIP/2.0 %d", &status); err != nil {
		t.Fatalf("%q is no status line", header[0])
	}
	return status, header[1:]
}

// memoryOf returns how many octets a process has in memory.
func memoryOf(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if kilobytes, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kilobytes), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
