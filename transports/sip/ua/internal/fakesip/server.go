// Package fakesip is a SIP server for the tests of user agents: it registers,
// challenges, forwards and stores as a gateway does, and drops, repeats, loses
// and reorders exactly what a test tells it to. It listens on loopback, keeps
// everything in memory, and must not know any of the agents that it tests.
package fakesip

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// Config says how the server behaves. A function that is nil never says yes.
// Numbers given to functions begin with 1.
type Config struct {
	Host       string            // where to listen; empty: 127.0.0.1
	Domain     string            // and realm
	Accounts   map[string]string // passwords by user
	Algorithms []string          // those challenged with, in this order; none: MD5
	NonceUses  int               // after so many a nonce is stale; 0: never
	Granted    int               // seconds that a registration is granted; 0: as asked

	Standby      func() bool                                                 // everything is answered 503
	Answer       func(to string) (code int, reason string, headers []string) // code 0: the usual way
	DropRequest  func(n int) bool                                            // of all datagrams that arrive
	DropResponse func(n int) bool                                            // of all responses that leave
	Lose         func(n int) bool                                            // of messages: answered and forgotten
	Duplicate    func(n int) bool                                            // of deliveries: a second transaction
	Repeat       func(n int) bool                                            // of deliveries: the same datagram again
	Hold         func(n int) bool                                            // of deliveries: after the next one
	Damage       func(n int) bool                                            // of deliveries: with another body
}

// Server is a running fake.
type Server struct {
	config Config
	conn   *net.UDPConn
	parser *sip.Parser

	streams streams
	tasks   sync.WaitGroup

	turn sync.Mutex // held while a packet is worked on: it guards all below, but for what mu guards

	nonces     map[string]*nonce
	answers    map[string][]byte   // by transaction; nil while there is none
	waiting    map[string]origin   // by the branch of a delivery
	unanswered map[string]delivery // by the transaction that waits for it
	stored     map[string][]*sip.Request
	held       []delivery
	datagrams  int
	responses  int
	messages   int
	forwards   int
	serial     int

	mu       sync.Mutex
	contacts map[string]binding
	methods  map[string]int
	watched  map[string]chan *sip.Response
	awaited  map[string]func()
}

type nonce struct {
	used  map[int]bool
	count int
}

type binding struct {
	uri    sip.Uri
	source netip.AddrPort
}

// origin is the request that a delivery answers.
type origin struct {
	request *sip.Request
	source  netip.AddrPort
}

type delivery struct {
	datagram []byte
	to       netip.AddrPort
}

// Start runs a server until the test ends.
func Start(t testing.TB, config Config) *Server {
	t.Helper()
	if config.Host == "" {
		config.Host = "127.0.0.1"
	}
	if len(config.Algorithms) == 0 {
		config.Algorithms = []string{"MD5"}
	}
	conn, listener := listen(t, config.Host)
	s := &Server{
		config: config, conn: conn, parser: sip.NewParser(),
		nonces: map[string]*nonce{}, answers: map[string][]byte{}, waiting: map[string]origin{}, unanswered: map[string]delivery{},
		stored: map[string][]*sip.Request{}, contacts: map[string]binding{}, methods: map[string]int{},
		watched: map[string]chan *sip.Response{}, awaited: map[string]func(){},
	}
	s.streams = streams{listener: listener, open: map[netip.AddrPort]net.Conn{}}
	s.tasks.Go(s.serve)
	s.tasks.Go(s.accept)
	t.Cleanup(func() {
		conn.Close()
		s.streams.listener.Close()
		s.Hangup()
		s.tasks.Wait()
	})
	return s
}

// listen opens a socket for UDP and one for TCP with the same port: one that
// neither has given to others.
func listen(t testing.TB, host string) (*net.UDPConn, *net.TCPListener) {
	t.Helper()
	address := netip.AddrPortFrom(netip.MustParseAddr(host), 0)
	for range 20 {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		if err != nil {
			t.Skipf("can't listen on %s: %v", host, err)
		}
		listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(conn.LocalAddr().(*net.UDPAddr).AddrPort()))
		if err == nil {
			return conn, listener
		}
		conn.Close()
	}
	t.Fatalf("no port of %s is free for UDP and TCP", host)
	return nil, nil
}

// Address is where the server listens, over UDP and TCP, host:port.
func (s *Server) Address() string { return s.conn.LocalAddr().String() }

// Contact is where a user is registered; false: nowhere.
func (s *Server) Contact(user string) (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.contacts[user]
	return b.source, ok
}

// Requests tells how many requests of a method were let in, without their
// retransmissions.
func (s *Server) Requests(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.methods[method]
}

// Inject sends any datagram to a registered user.
func (s *Server) Inject(user, datagram string) error {
	to, ok := s.Contact(user)
	if !ok {
		return fmt.Errorf("%s isn't registered", user)
	}
	return s.writeTo([]byte(datagram), to)
}

// Watch returns where the first response to a request with this branch
// arrives: one that Inject sends.
func (s *Server) Watch(branch string) <-chan *sip.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched[branch] = make(chan *sip.Response, 1)
	return s.watched[branch]
}

// OnRegister calls f after the next registration of a user.
func (s *Server) OnRegister(user string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited[user] = f
}

func (s *Server) serve() {
	buffer := make([]byte, 65535)
	for {
		n, source, err := s.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		s.receive(append([]byte(nil), buffer[:n]...), source)
	}
}

// receive works on a packet.
func (s *Server) receive(packet []byte, source netip.AddrPort) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.datagrams++
	if says(s.config.DropRequest, s.datagrams) {
		return
	}
	parsed, err := s.parser.ParseSIP(packet)
	if err != nil {
		return
	}
	parsed.SetSource(source.String())
	switch m := parsed.(type) {
	case *sip.Request:
		s.request(m, source)
	case *sip.Response:
		s.response(m)
	}
}

func (s *Server) request(r *sip.Request, source netip.AddrPort) {
	key := transaction(r)
	if answer, known := s.answers[key]; known {
		s.repeat(key, answer, source)
		return
	}
	s.answers[key] = nil
	s.mu.Lock()
	s.methods[string(r.Method)]++
	s.mu.Unlock()

	if s.config.Standby != nil && s.config.Standby() {
		s.answer(origin{r, source}, 503, "Service Unavailable")
		return
	}
	if r.Method == sip.OPTIONS {
		s.answer(origin{r, source}, 200, "OK")
		return
	}
	user, ok := s.authenticate(r, source)
	if !ok {
		return
	}
	switch r.Method {
	case sip.REGISTER:
		s.register(r, user, source)
	case sip.MESSAGE:
		s.message(r, source)
	default:
		s.answer(origin{r, source}, 405, "Method Not Allowed")
	}
}

// repeat answers a retransmission; while there is no answer it repeats the
// delivery that is waited for.
func (s *Server) repeat(key string, answer []byte, source netip.AddrPort) {
	if answer != nil {
		s.send(answer, source)
		return
	}
	if d, ok := s.unanswered[key]; ok {
		s.write(d.datagram, d.to)
	}
}

func transaction(r *sip.Request) string {
	branch, _ := r.Via().Params.Get("branch")
	return branch + " " + string(r.Method)
}

func (s *Server) authenticate(r *sip.Request, source netip.AddrPort) (user string, ok bool) {
	header := r.GetHeader("Authorization")
	if header == nil {
		s.challenge(r, source, false)
		return "", false
	}
	c, err := digest.ParseCredentials(header.Value())
	if err != nil {
		s.answer(origin{r, source}, 400, "Bad Credentials")
		return "", false
	}
	password, known := s.config.Accounts[c.Username]
	want, err := digest.Digest(
		&digest.Challenge{Realm: s.config.Domain, Nonce: c.Nonce, Algorithm: c.Algorithm, QOP: []string{"auth"}},
		digest.Options{Method: string(r.Method), URI: r.Recipient.String(), Count: c.Nc, Username: c.Username, Password: password, Cnonce: c.Cnonce},
	)
	if err != nil || !known || want.Response != c.Response {
		s.challenge(r, source, false)
		return "", false
	}
	if !s.fresh(c) {
		s.challenge(r, source, true)
		return "", false
	}
	return c.Username, true
}

// fresh takes each nonce count once.
func (s *Server) fresh(c *digest.Credentials) bool {
	n := s.nonces[c.Nonce]
	if n == nil || n.used[c.Nc] || s.config.NonceUses > 0 && n.count >= s.config.NonceUses {
		return false
	}
	n.used[c.Nc] = true
	n.count++
	return true
}

func (s *Server) challenge(r *sip.Request, source netip.AddrPort, stale bool) {
	s.serial++
	name := "nonce-" + strconv.Itoa(s.serial)
	s.nonces[name] = &nonce{used: map[int]bool{}}
	var headers []string
	for _, algorithm := range s.config.Algorithms {
		c := digest.Challenge{Realm: s.config.Domain, Nonce: name, Algorithm: algorithm, QOP: []string{"auth"}, Stale: stale}
		headers = append(headers, "WWW-Authenticate: "+c.String())
	}
	s.answer(origin{r, source}, 401, "Unauthorized", headers...)
}

func (s *Server) register(r *sip.Request, user string, source netip.AddrPort) {
	contact, expires := r.Contact(), "0"
	if h := r.GetHeader("Expires"); h != nil {
		expires = h.Value()
	}
	if contact == nil {
		s.answer(origin{r, source}, 400, "No Contact")
		return
	}
	if expires == "0" {
		s.mu.Lock()
		delete(s.contacts, user)
		s.mu.Unlock()
		s.answer(origin{r, source}, 200, "OK")
		return
	}
	if s.config.Granted > 0 {
		expires = strconv.Itoa(s.config.Granted)
	}
	s.mu.Lock()
	s.contacts[user] = binding{*contact.Address.Clone(), source}
	awaited := s.awaited[user]
	delete(s.awaited, user)
	s.mu.Unlock()
	if awaited != nil {
		defer awaited()
	}
	s.answer(origin{r, source}, 200, "OK", "Contact: <"+contact.Address.String()+">;expires="+expires)

	waiting := s.stored[user]
	delete(s.stored, user)
	for _, m := range waiting {
		s.forward(m, user, origin{})
	}
	s.release()
}

func (s *Server) message(r *sip.Request, source netip.AddrPort) {
	from := origin{r, source}
	to := r.Recipient.User
	if s.config.Answer != nil {
		if code, reason, headers := s.config.Answer(to); code != 0 {
			s.answer(from, code, reason, headers...)
			return
		}
	}
	if _, known := s.config.Accounts[to]; !known {
		s.answer(from, 404, "Not Found")
		return
	}
	s.messages++
	if says(s.config.Lose, s.messages) {
		s.answer(from, 202, "Accepted")
		return
	}
	if _, online := s.Contact(to); !online {
		s.stored[to] = append(s.stored[to], r)
		s.answer(from, 202, "Accepted")
		return
	}
	s.forward(r, to, from)
}

// forward delivers a message to its user's contact. from is answered when the
// contact answers; the zero origin isn't.
func (s *Server) forward(r *sip.Request, user string, from origin) {
	s.forwards++
	n := s.forwards
	s.mu.Lock()
	b := s.contacts[user]
	s.mu.Unlock()

	branch, datagram := s.delivery(r, b, says(s.config.Damage, n))
	if from.request != nil {
		s.waiting[branch] = from
		s.unanswered[transaction(from.request)] = delivery{datagram, b.source}
	}
	if says(s.config.Hold, n) {
		s.held = append(s.held, delivery{datagram, b.source})
		return
	}
	s.write(datagram, b.source)
	if says(s.config.Repeat, n) {
		s.write(datagram, b.source)
	}
	if says(s.config.Duplicate, n) {
		_, again := s.delivery(r, b, false)
		s.write(again, b.source)
	}
	s.release()
}

// release sends what was held back.
func (s *Server) release() {
	held := s.held
	s.held = nil
	for _, d := range held {
		s.write(d.datagram, d.to)
	}
}

func (s *Server) delivery(r *sip.Request, b binding, damaged bool) (branch string, datagram []byte) {
	s.serial++
	branch = "z9hG4bK-fake-" + strconv.Itoa(s.serial)
	body := string(r.Body())
	if damaged && body != "" {
		body = body[:len(body)-1] + "?"
	}
	var w strings.Builder
	network := "UDP"
	if isStream(b.source) {
		network = "TCP"
	}
	fmt.Fprintf(&w, "MESSAGE %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=%s;rport\r\nMax-Forwards: 69\r\n", b.uri.String(), network, s.Address(), branch)
	fmt.Fprintf(&w, "From: %s\r\nTo: %s\r\n", r.From().Value(), r.To().Value())
	fmt.Fprintf(&w, "Call-ID: %s\r\nCSeq: %d MESSAGE\r\n", r.CallID().Value(), r.CSeq().SeqNo)
	if r.ContentType() != nil {
		fmt.Fprintf(&w, "Content-Type: %s\r\n", r.ContentType().Value())
	}
	fmt.Fprintf(&w, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return branch, []byte(w.String())
}

func (s *Server) response(r *sip.Response) {
	if r.Via() == nil || r.IsProvisional() {
		return
	}
	branch, _ := r.Via().Params.Get("branch")
	s.mu.Lock()
	watched := s.watched[branch]
	delete(s.watched, branch)
	s.mu.Unlock()
	if watched != nil {
		watched <- r
	}
	from, known := s.waiting[branch]
	if !known {
		return
	}
	delete(s.waiting, branch)
	delete(s.unanswered, transaction(from.request))
	s.answer(from, r.StatusCode, r.Reason)
}

func (s *Server) answer(to origin, code int, reason string, headers ...string) {
	res := sip.NewResponseFromRequest(to.request, code, reason, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	datagram := []byte(res.String())
	s.answers[transaction(to.request)] = datagram
	s.send(datagram, to.source)
}

func (s *Server) send(response []byte, to netip.AddrPort) {
	s.responses++
	if says(s.config.DropResponse, s.responses) {
		return
	}
	s.write(response, to)
}

// write ignores errors: on loopback they mean that the peer has gone, and the
// test that cares notices.
func (s *Server) write(packet []byte, to netip.AddrPort) { _ = s.writeTo(packet, to) }

func (s *Server) writeTo(packet []byte, to netip.AddrPort) error {
	if !isStream(to) {
		_, err := s.conn.WriteToUDPAddrPort(packet, to)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	conn := s.streams.open[to]
	if conn == nil {
		return net.ErrClosed
	}
	_, err := conn.Write(packet)
	return err
}

func says(f func(int) bool, n int) bool { return f != nil && f(n) }
