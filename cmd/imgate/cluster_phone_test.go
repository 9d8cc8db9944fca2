//go:build cluster

package main_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

const (
	domain = "sip.example.com"
	// trying is how long a phone waits for a node before it asks the next one.
	trying = 500 * time.Millisecond
	// allRefused is its pause when no node takes anything.
	allRefused = 100 * time.Millisecond
)

// phone is a user with one UDP socket, who knows all nodes. Unlike ua.Agent it
// repeats a request word for word to the next node, in a transaction of its own
// there, and tells each datagram that it gets from a repeat of it.
type phone struct {
	user    string
	servers []netip.AddrPort // of the nodes
	conn    *net.UDPConn
	arrived func(delivery) // nil: nothing is expected

	mu        sync.Mutex
	favourite int // the node that accepted something last
	waiting   map[string]chan<- answer
	challenge *digest.Challenge
	count     int
	cseq      int
	answers   map[int]int // how often by status code
	wrong     error       // what should never have come
}

// delivery is a message as it came, once for each transaction.
type delivery struct {
	body, callID, branch string
	from                 netip.AddrPort
	at                   time.Time
}

// answer is a final response.
type answer struct {
	branch   string
	response *sip.Response
}

// request is said again and again until somebody has answered it for good.
type request struct {
	method, uri, to     string
	callID, tag         string
	headers             []string // whole lines
	body                string
	cseq                int
	credentials         string
	branches            []string // of what each node was asked and hasn't refused; "": nothing
	answers             chan answer
	silence             bool // a node didn't answer it in time, and may have taken it all the same
	unsure              int  // how often it became a new request after such a silence
	challenges, refused int
	trail               []string // what became of it, node by node
}

func newPhone(t *testing.T, user string, servers []netip.AddrPort, arrived func(delivery)) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20) // as much as there may be
	p := &phone{user: user, servers: servers, conn: conn, arrived: arrived, waiting: map[string]chan<- answer{}, answers: map[int]int{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.read()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
		if p.wrong != nil {
			t.Errorf("%s: %v", user, p.wrong)
		}
	})
	return p
}

func (p *phone) newRequest(method, uri, to, body string, headers ...string) *request {
	r := &request{
		method: method, uri: uri, to: to, callID: rand.Text(), tag: rand.Text(), headers: headers, body: body,
		branches: make([]string, len(p.servers)), answers: make(chan answer, 64),
	}
	p.renew(r)
	return r
}

// message is a request that sends a text.
func (p *phone) message(to, body string) *request {
	uri := "sip:" + to + "@" + domain
	return p.newRequest("MESSAGE", uri, uri, body, "Content-Type: text/plain")
}

// registration is a request that registers this phone's socket.
func (p *phone) registration() *request {
	uri := "sip:" + p.user + "@" + domain
	return p.newRequest("REGISTER", "sip:"+domain, uri, "", "Contact: <sip:"+p.user+"@"+p.conn.LocalAddr().String()+">", "Expires: 3600")
}

// register registers this phone's socket.
func (p *phone) register(ctx context.Context) error {
	_, _, err := p.ask(ctx, p.registration())
	return err
}

// renew makes another request of one: with a CSeq of its own, and credentials
// for the newest challenge.
func (p *phone) renew(r *request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cseq++
	r.cseq = p.cseq
	if p.challenge == nil {
		return
	}
	p.count++
	credentials, err := digest.Digest(p.challenge, digest.Options{
		Method: r.method, URI: r.uri, Username: p.user, Password: password, Count: p.count,
	})
	if err != nil {
		p.wrong = err
		return
	}
	r.credentials = "Authorization: " + credentials.String()
}

// ask sends a request until it is accepted, to one node after the other, and
// returns the answer's code and who gave it. What it gets besides refusals for
// now is an error.
func (p *phone) ask(ctx context.Context, r *request) (code, by int, err error) {
	defer p.forget(r)
	for node := p.first(); ctx.Err() == nil; {
		p.transmit(r, node)
		a, ok := r.wait(ctx)
		if !ok {
			r.note(node, "silence")
			r.silence, node = r.credentials != "", p.after(node) // without them nobody takes it
			continue
		}
		by = slices.Index(r.branches, a.branch)
		r.note(by, strconv.Itoa(a.response.StatusCode)+" "+a.response.Reason)
		switch code := a.response.StatusCode; {
		case code/100 == 2:
			p.prefer(by)
			return code, by, nil
		case by < 0: // to a request that has become another one since
		case code == 401:
			if err := p.challenged(r, a); err != nil {
				return code, by, err
			}
			node = by
		case code/100 == 5 || code == 480:
			r.branches[by] = ""
			node = p.after(by)
			if r.refused++; r.refused%len(p.servers) == 0 {
				pause(ctx, allRefused)
			}
		default:
			return code, by, fmt.Errorf("%s is answered %d %s", r.method, code, a.response.Reason)
		}
	}
	return 0, by, fmt.Errorf("%s is never accepted: %w", r.method, context.Cause(ctx))
}

// challenged makes a request anew for a challenge. After a silence it isn't
// known whether it was taken before: then it may be there twice.
func (p *phone) challenged(r *request, a answer) error {
	h := a.response.GetHeader("WWW-Authenticate")
	if h == nil {
		return errors.New("a 401 has no challenge")
	}
	challenge, err := digest.ParseChallenge(h.Value())
	if err != nil {
		return err
	}
	if r.challenges++; r.challenges > 100 {
		return errors.New("credentials are refused again and again")
	}
	if r.silence {
		r.unsure++
	}
	r.silence = false
	clear(r.branches)
	p.mu.Lock()
	p.challenge, p.count = challenge, 0
	p.mu.Unlock()
	p.renew(r)
	return nil
}

// note keeps what became of a request at a node, and when.
func (r *request) note(node int, what string) {
	r.trail = append(r.trail, fmt.Sprintf("%s node %d: %s", time.Now().Format(clock), node, what))
}

// wait returns the next answer to a request.
func (r *request) wait(ctx context.Context) (a answer, ok bool) {
	timer := time.NewTimer(trying)
	defer timer.Stop()
	select {
	case a = <-r.answers:
		return a, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return a, false
}

// transmit sends a request to a node: again, if that has it already.
func (p *phone) transmit(r *request, node int) {
	if r.branches[node] == "" {
		r.branches[node] = sip.RFC3261BranchMagicCookie + rand.Text()
		p.mu.Lock()
		p.waiting[r.branches[node]] = r.answers
		p.mu.Unlock()
	}
	lines := []string{
		r.method + " " + r.uri + " SIP/2.0",
		"Via: SIP/2.0/UDP " + p.conn.LocalAddr().String() + ";branch=" + r.branches[node] + ";rport",
		"Max-Forwards: 70",
		"From: <sip:" + p.user + "@" + domain + ">;tag=" + r.tag,
		"To: <" + r.to + ">",
		"Call-ID: " + r.callID,
		fmt.Sprintf("CSeq: %d %s", r.cseq, r.method),
	}
	lines = append(lines, r.headers...)
	if r.credentials != "" {
		lines = append(lines, r.credentials)
	}
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(r.body)), "", r.body)
	p.send([]byte(strings.Join(lines, "\r\n")), p.servers[node])
}

// send may fail as any datagram may be lost.
func (p *phone) send(packet []byte, to netip.AddrPort) { _, _ = p.conn.WriteToUDPAddrPort(packet, to) }

// once asks one node once and returns its answer; 0 if there is none in time.
func (p *phone) once(ctx context.Context, r *request, node int) int {
	defer p.forget(r)
	ctx, cancel := context.WithTimeout(ctx, quickly)
	defer cancel()
	for ctx.Err() == nil {
		p.transmit(r, node)
		if a, ok := r.wait(ctx); ok {
			return a.response.StatusCode
		}
	}
	return 0
}

func (p *phone) forget(r *request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for branch, answers := range p.waiting {
		if answers == r.answers {
			delete(p.waiting, branch)
		}
	}
}

func (p *phone) first() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.favourite
}

func (p *phone) after(node int) int { return (node + 1) % len(p.servers) }

func (p *phone) prefer(node int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if node >= 0 {
		p.favourite = node
	}
}

// read takes what comes until the socket is closed.
func (p *phone) read() {
	buffer := make([]byte, 64<<10)
	parser := sip.NewParser()
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // one datagram
		}
		parsed, err := parser.ParseSIP(slices.Clone(buffer[:n]))
		switch m := parsed.(type) {
		case *sip.Response:
			p.dispatch(m)
		case *sip.Request:
			p.serve(m, from)
		default:
			p.fail(fmt.Errorf("not SIP: %w", err))
		}
	}
}

func (p *phone) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = err
}

func (p *phone) dispatch(r *sip.Response) {
	via := r.Via()
	if via == nil || r.IsProvisional() {
		return
	}
	branch, _ := via.Params.Get("branch")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[r.StatusCode]++
	select {
	case p.waiting[branch] <- answer{branch, r}:
	default: // nobody waits for it any more
	}
}

// serve takes a message and answers it, each time that it comes.
func (p *phone) serve(r *sip.Request, from netip.AddrPort) {
	at := time.Now()
	if r.Method != sip.MESSAGE || p.arrived == nil || r.Via() == nil || r.CallID() == nil || r.To() == nil {
		p.fail(fmt.Errorf("an unexpected %s from %s", r.Method, from))
		return
	}
	branch, _ := r.Via().Params.Get("branch")
	p.arrived(delivery{body: string(r.Body()), callID: r.CallID().Value(), branch: branch, from: from, at: at})
	r.SetSource(from.String())
	r.To().Params.Add("tag", p.user)
	p.send([]byte(sip.NewResponseFromRequest(r, 200, "OK", nil).String()), from)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
