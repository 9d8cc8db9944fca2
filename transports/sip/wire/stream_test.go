package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStreamDeadlines(t *testing.T) {
	limits := Limits{MessageTimeout: 10 * time.Second, Unproven: time.Minute, Idle: 15 * time.Minute}
	tests := []struct {
		name  string
		play  func(c *caller)
		after time.Duration
		cause cause
	}{
		{"silence", func(*caller) {}, 10 * time.Second, causeSlowSender},
		{"pings and no message", func(c *caller) {
			for range 3 {
				c.say("\r\n\r\n")
				c.hear()
				time.Sleep(3 * time.Second)
			}
		}, 10 * time.Second, causeSlowSender},
		{"one octet a second", func(c *caller) {
			for _, octet := range hello("a")[:9] {
				c.say(string(octet))
				time.Sleep(time.Second)
			}
		}, 10 * time.Second, causeSlowSender},
		{"one octet a second, second message", func(c *caller) {
			c.say(hello("keep"))
			c.hear()
			time.Sleep(time.Hour / 6)
			for _, octet := range hello("a")[:9] {
				c.say(string(octet))
				time.Sleep(time.Second)
			}
		}, time.Hour/6 + 10*time.Second, causeSlowSender},
		{"always half a message ahead", func(c *caller) {
			text := hello("keep")
			c.say(text[:9])
			for range 5 {
				time.Sleep(8 * time.Second)
				c.say(text[9:] + text[:9])
				c.hear()
			}
		}, 50 * time.Second, causeSlowSender},
		{"half of a large message", func(c *caller) {
			c.say(streamed("l: 9000\r\n\r\n" + strings.Repeat("x", 8000)))
		}, 10 * time.Second, causeSlowSender},
		{"stranger", func(c *caller) {
			c.say(hello("a"))
			c.hear()
		}, time.Minute, causeIdle},
		{"stranger who pings", func(c *caller) {
			c.say(hello("a"))
			c.hear()
			for range 5 {
				time.Sleep(10 * time.Second)
				c.say("\r\n\r\n")
				c.hear()
			}
		}, time.Minute, causeIdle},
		{"client", func(c *caller) {
			c.say(hello("keep"))
			c.hear()
		}, 15 * time.Minute, causeIdle},
		{"client who pings", func(c *caller) {
			c.say(hello("keep"))
			c.hear()
			for range 10 {
				time.Sleep(10 * time.Minute)
				c.say("\r\n\r\n")
				c.hear()
			}
		}, 115 * time.Minute, causeIdle},
		{"client who sends single CRLFs", func(c *caller) {
			c.say(hello("keep"))
			c.hear()
			for range 10 {
				time.Sleep(10 * time.Minute)
				c.say("\r\n")
			}
		}, 115 * time.Minute, causeIdle},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{Limits: limits}, func(t *testing.T, b *bubble) {
				c, start := b.call(somewhere), time.Now()
				test.play(c)
				if got := c.ends().Sub(start); got != test.after {
					t.Errorf("ended after %v, want %v", got, test.after)
				}
				<-b.closed
				if n := b.counters.ended(test.cause); n != 1 || b.Counts().Connections != 0 {
					t.Errorf("%+v", b.Counts())
				}
			})
		})
	}
}

func TestStreamKeepAlives(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		c := b.call(somewhere)
		c.say(hello("keep"))
		c.hear()
		c.say("\r")
		c.say("\n\r")
		c.say("\n")
		if got := c.hear(); got != "pong" {
			t.Error(got)
		}
		c.say("\r\n")
		time.Sleep(2 * time.Second)
		c.say("\r\n") // not the second half of a ping
		if !c.isOpen() {
			t.Error("a single CRLF was answered")
		}
		c.say("\r\n" + hello("a"))
		if got := c.hear(); got != "pong" {
			t.Error(got)
		}
		if got := c.hear(); got != "200 OK" {
			t.Error(got)
		}
		if n := b.Counts(); n.Pings != 2 || n.KeepAlives != 5 {
			t.Errorf("%+v", n)
		}
	})
}

func TestStreamBroken(t *testing.T) {
	tests := []struct {
		name, said, answer string
	}{
		{"no Content-Length", streamed("\r\n"), "400 Missing Content-Length"},
		{"two of them", streamed("l: 1\r\nContent-Length: 2\r\n\r\n"), "400 More Than One Content-Length"},
		{"body far too large", streamed("l: 99999999\r\n\r\n"), "413 Request Entity Too Large"},
		{"header section too large", streamed(strings.Repeat("X: "+strings.Repeat("x", 8000)+"\r\n", 5)), "513 Message Too Large"},
		{"garbage", "\x16\x03\x01", ""},
		{"HTTP", "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", ""},
		{"ACK", strings.ReplaceAll(streamed("\r\n"), "MESSAGE", "ACK"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				c := b.call(somewhere)
				go c.Write([]byte(test.said)) // not all of it is read
				if test.answer != "" {
					if got := c.hear(); got != test.answer {
						t.Errorf("%s, want %s", got, test.answer)
					}
				}
				c.ends()
				<-b.closed
				if n := b.Counts(); n.EndedMalformed != 1 || n.Malformed+n.TooLarge != 1 || n.Requests != 0 {
					t.Errorf("%+v", n)
				}
			})
		})
	}
}

// TestLastAnswerIsNotCutShort: what others would still write on a connection
// that is being hung up doesn't close it before the last answer is out.
func TestLastAnswerIsNotCutShort(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		c := b.call(somewhere)
		c.say(hello("a"))
		c.hear()
		flow := <-b.flows
		conn := b.connections.find(flow)
		c.say(streamed("\r\n"))
		<-conn.done
		if err := conn.send([]byte("late"), flow.Remote); err != ErrNoFlow {
			t.Error(err)
		}
		if got := c.hear(); got != "400 Missing Content-Length" {
			t.Error(got)
		}
		c.ends()
	})
}

func TestStreamGoesOnAfterARefusal(t *testing.T) {
	inBubble(t, Config{MaxBody: 100}, func(t *testing.T, b *bubble) {
		c := b.call(somewhere)
		for _, test := range []struct{ said, answer string }{
			{strings.Replace(hello("a"), "1 MESSAGE", "1 INFO", 1), "400 CSeq Method Mismatch"},
			{streamed("l: 101\r\n\r\n" + strings.Repeat("x", 101)), "413 Request Entity Too Large"},
			{streamed("s: a\r\ns: b\r\nl: 2\r\n\r\nhi"), "400 More Than One Subject"},
			{strings.Replace(hello("c"), "Via:", "X:", 1) + hello("b"), "200 OK"}, // nobody knows whom to answer
		} {
			go c.say(test.said)
			if got := c.hear(); got != test.answer {
				t.Errorf("%s, want %s", got, test.answer)
			}
		}
	})
}

// TestStreamStaysInStep sends all that the codec is tested with over connections:
// what comes behind it is either understood, or the connection has ended.
func TestStreamStaysInStep(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.sip"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			inBubble(t, Config{}, func(t *testing.T, b *bubble) {
				c := b.call(somewhere)
				go c.Write(append(data, hello("behind")...)) // not all of it is read
				_ = c.SetReadDeadline(time.Now().Add(11 * time.Second))
				answers, err := io.ReadAll(c)
				behind := strings.Count(string(answers), "Call-ID: behind\r\n")
				if behind > 1 || behind == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v after %q", err, answers)
				}
			})
		})
	}
}

func TestConnectionLimits(t *testing.T) {
	var log strings.Builder
	limits := Limits{MaxConnections: 5, MaxPerAddress: 2}
	config := Config{Limits: limits, Log: slog.New(slog.NewTextHandler(&log, nil))}
	inBubble(t, config, func(t *testing.T, b *bubble) {
		b.known("198.51.100.1:1")
		first := b.known("198.51.100.1:2")
		for port := range 100 {
			b.call(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(port+3)).String()).ends()
		}
		b.known("[2001:db8::1]:1")
		b.known("[2001:db8::2]:2")
		b.call("[2001:db8::ffff:1]:3").ends() // the same /64
		b.known("[2001:db8:0:1::1]:4")        // another
		b.call("[2001:db8:0:2::1]:5").ends()  // there are five
		synctest.Wait()
		if n := b.Counts(); n.TooManyOfOne != 101 || n.TooMany != 1 || n.Accepted != 5 || n.Connections != 5 {
			t.Errorf("%+v", n)
		}
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d lines in the log:\n%s", got, &log)
		}
		first.Close()
		<-b.closed
		b.known("198.51.100.1:200") // there is room again
		time.Sleep(quiet)
		b.call("198.51.100.1:201").ends()
		synctest.Wait()
		if !strings.Contains(log.String(), `msg="connections refused: one address has too many" count=`) {
			t.Errorf("no second line:\n%s", &log)
		}
	})
}

func TestAcceptBacksOff(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		start := time.Now()
		for range 12 {
			b.pipes.errs <- errors.New("too many open files")
		}
		c := b.call(somewhere)
		// 5, 10, 20 … 640 ms are 1,275 ms; four times 1 s follow.
		if got := time.Since(start); got != 5275*time.Millisecond {
			t.Errorf("took %v", got)
		}
		c.say(hello("a"))
		if got := c.hear(); got != "200 OK" || b.Counts().AcceptErrors != 12 {
			t.Error(got, b.Counts())
		}
		start = time.Now()
		b.pipes.errs <- errors.New("too many open files")
		b.call(somewhere)
		if got := time.Since(start); got != 5*time.Millisecond {
			t.Errorf("the next pause is %v", got)
		}
	})
}

// TestSlowReader: who doesn't read what is written loses the connection, when
// too much waits or a write takes too long; nobody else waits meanwhile.
func TestSlowReader(t *testing.T) {
	tests := []struct {
		name  string
		after time.Duration
		limit Limits
		size  int
		cause cause
	}{
		{"a write takes too long", 5 * time.Second, Limits{}, 100, causeSlowReader},
		{"too much waits", 0, Limits{}, maxQueued / 2, causeSlowReader},
		{"all together hold too much", 0, Limits{MaxBuffered: 10_000}, 6000, causeMemory},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, Config{Limits: test.limit}, func(t *testing.T, b *bubble) {
				slow, good := b.call(somewhere), b.call("198.51.100.2:1")
				slow.say(hello("a"))
				flow := <-b.flows
				start := time.Now()
				conn := b.connections.find(flow)
				for range 3 {
					conn.send(make([]byte, test.size), flow.Remote)
				}
				good.say(hello("b"))
				if got := good.hear(); got != "200 OK" || time.Since(start) != 0 {
					t.Errorf("%s after %v", got, time.Since(start))
				}
				if f := <-b.closed; f != flow || time.Since(start) != test.after {
					t.Errorf("%v after %v", f, time.Since(start))
				}
				b.writers.Wait()
				if n := b.counters.ended(test.cause); n != 1 {
					t.Errorf("%+v", b.Counts())
				}
				if left := b.budget.left.Load(); left != int64(b.config.Limits.MaxBuffered) {
					t.Errorf("%d of the budget left", left)
				}
			})
		})
	}
}

// TestFullWorkerHoldsTheStream: a connection isn't read further while its worker
// has too much to do, and nothing is dropped; after a second the peer is told.
func TestFullWorkerHoldsTheStream(t *testing.T) {
	tests := []struct {
		name    string
		busy    time.Duration
		answers string
	}{
		{"for a moment", 500 * time.Millisecond, "200 200 200 200"},
		{"for long", 1500 * time.Millisecond, "503 200 200 200"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handled atomic.Int32
				e, c, stop := served(t, Config{Workers: 1, Backlog: 1}, func(_ context.Context, x *Exchange) {
					if handled.Add(1) == 1 {
						time.Sleep(test.busy)
					}
					x.Answer(Reply{Status: 200})
				})
				go c.say(hello("a") + hello("b") + hello("c") + hello("d"))
				var got []string
				for range 4 {
					got = append(got, c.hear()[:3])
				}
				if answers := strings.Join(got, " "); answers != test.answers {
					t.Errorf("answers %s, want %s", answers, test.answers)
				}
				stop()
				e.Close()
			})
		})
	}
}

// TestCloseWaitsBriefly: what still has to be written has a second, each time
// something was taken.
func TestCloseWaitsBriefly(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, b *bubble) {
		c := b.call(somewhere)
		c.say(hello("a"))
		c.hear()
		flow := <-b.flows
		conn := b.connections.find(flow)
		conn.send([]byte("first"), flow.Remote)
		synctest.Wait() // the writer has it in its hand
		conn.send([]byte("second"), flow.Remote)
		start := time.Now()
		go func() {
			time.Sleep(500 * time.Millisecond)
			c.Read(make([]byte, len("first")))
		}()
		b.Close()
		if got := time.Since(start); got != 1500*time.Millisecond {
			t.Errorf("took %v", got)
		}
	})
}

// TestStreamDrains: when Serve has ended nothing is read, what is under way is
// still answered, and Close ends the connection behind that.
func TestStreamDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pending := make(chan *Exchange, 1)
		config := Config{Closed: func(f Flow) { t.Errorf("%v was closed while it drained", f) }}
		e, c, stop := served(t, config, func(_ context.Context, x *Exchange) { pending <- x })
		c.say(hello("a"))
		x := <-pending
		stop()
		if !e.Connected(x.Flow) {
			t.Error("the connection has gone")
		}
		x.Answer(Reply{Status: 202})
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.Close()
		}()
		if got := c.hear(); got != "202 Accepted" {
			t.Error(got)
		}
		c.ends()
		<-done
		if e.Connected(x.Flow) {
			t.Error("it is still connected")
		}
		x.Answer(Reply{Status: 200}) // too late, and harmless
	})
}

// TestDismiss: a connection is hung up once no answer is under way on it; what
// was written arrives, and what is said meanwhile isn't handled.
func TestDismiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, goOn := make(chan *Exchange), make(chan Reply)
		e, c, stop := served(t, Config{}, func(_ context.Context, x *Exchange) {
			_ = x.Begin()
			begun <- x
			if reply := <-goOn; reply.Status != 0 {
				x.Answer(reply)
			} else {
				x.Abandon()
			}
		})
		defer stop()
		for _, reply := range []Reply{{}, {Status: 200}} { // abandoned, then answered
			c.say(hello(fmt.Sprint(reply.Status)))
			flow := (<-begun).Flow
			if e.Dismiss(flow) {
				t.Error("dismissed with an answer under way")
			}
			goOn <- reply
		}
		if got := c.hear(); got != "200 OK" {
			t.Error(got)
		}
		synctest.Wait()
		flow := e.connections.all()[0].flow
		if !e.Dismiss(flow) {
			t.Error("nothing is under way")
		}
		synctest.Wait()
		if e.Connected(flow) {
			t.Error("requests could still be sent on it")
		}
		go c.Write([]byte(hello("late")))
		began := time.Now()
		if took := c.ends().Sub(began); took > flushWithin {
			t.Errorf("hung up after %v", took)
		}
		synctest.Wait()
		if n := e.Counts(); n.EndedDismissed != 1 || n.Connections != 0 || n.Requests != 2 {
			t.Errorf("%+v", n)
		}
		if !e.Dismiss(flow) {
			t.Error("one that is gone needs no more")
		}
	})
}
