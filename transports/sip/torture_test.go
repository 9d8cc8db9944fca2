package sip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// torture is a message of RFC 4475 or RFC 5118 and how it is answered.
type torture struct {
	name string
	// answers are the status lines that are right, over UDP and TCP alike; none:
	// silence.
	answers []string
	overTCP []string // if they are others
	// unfinished tells that over TCP more of it is to come.
	unfinished bool
}

// silent is what is answered by nothing.
var silent = []string{}

// rfc4475 are the messages of RFC 4475 by their names there. INVITE isn't for us,
// so what its SDP says is no matter. What asks for a registration is challenged
// before it is read: what becomes of it then, TestTortureOfRegistrations says.
var rfc4475 = []torture{
	// §3.1.1: valid.
	{name: "valid/wsinv", answers: []string{"405 Method Not Allowed"}},
	// We refuse each control character, though §25.1 of RFC 3261 lets one stand
	// behind a backslash. To can't be given back then, and so there is no answer.
	{name: "valid/intmeth", answers: silent},
	{name: "valid/esc01", answers: []string{"405 Method Not Allowed"}},
	{name: "valid/escnull", answers: []string{"401 Unauthorized"}},
	{name: "valid/esc02", answers: []string{"405 Method Not Allowed"}},
	{name: "valid/lwsdisp", answers: []string{"200 OK"}},
	{name: "valid/longreq", answers: []string{"405 Method Not Allowed"}},
	{name: "valid/dblreq", answers: []string{"401 Unauthorized"}, overTCP: []string{"401 Unauthorized", "405 Method Not Allowed"}},
	{name: "valid/semiuri", answers: []string{"200 OK"}},
	{name: "valid/transports", answers: []string{"200 OK"}},
	{name: "valid/mpart01", answers: []string{"403 Route Not Allowed"}},
	{name: "valid/unreason", answers: silent},
	{name: "valid/noreason", answers: silent},
	// §3.1.2: invalid.
	{name: "invalid/badinv01", answers: []string{"400 Bad Via"}},
	{name: "invalid/clerr", answers: []string{"400 Content-Length Mismatch"}, unfinished: true},
	{name: "invalid/ncl", answers: []string{"400 Content-Length Mismatch"}, overTCP: []string{"400 Bad Content-Length"}},
	{name: "invalid/scalar02", answers: []string{"400 Bad CSeq"}},
	{name: "invalid/scalarlg", answers: silent},
	{name: "invalid/quotbal", answers: []string{"400 Bad To"}},
	{name: "invalid/ltgtruri", answers: []string{"416 Unsupported URI Scheme", "400 Bad Request-URI"}},
	{name: "invalid/lwsruri", answers: []string{"400 Bad Request Line"}},
	{name: "invalid/lwsstart", answers: []string{"400 Bad Request Line"}},
	{name: "invalid/trws", answers: []string{"400 Bad Request Line"}},
	{name: "invalid/escruri", answers: []string{"405 Method Not Allowed"}},
	{name: "invalid/baddate", answers: []string{"405 Method Not Allowed"}},
	{name: "invalid/regbadct", answers: []string{"401 Unauthorized"}},
	{name: "invalid/badaspec", answers: []string{"400 Bad To"}},
	{name: "invalid/baddn", answers: []string{"400 Bad From"}},
	{name: "invalid/badvers", answers: []string{"505 Version Not Supported"}},
	{name: "invalid/mismatch01", answers: []string{"400 CSeq Method Mismatch"}},
	{name: "invalid/mismatch02", answers: []string{"400 CSeq Method Mismatch"}},
	{name: "invalid/bigcode", answers: silent},
	// §3.2 to §3.4: what is well-formed and means nothing good.
	{name: "invalid/badbranch", answers: []string{"200 OK"}},
	{name: "invalid/insuf", answers: silent}, // nothing by which its sender could know the answer
	{name: "invalid/unkscm", answers: []string{"416 Unsupported URI Scheme"}},
	{name: "invalid/novelsc", answers: []string{"416 Unsupported URI Scheme"}},
	{name: "invalid/unksm2", answers: []string{"401 Unauthorized"}},
	{name: "invalid/bext01", answers: []string{"420 Bad Extension"}},
	{name: "invalid/invut", answers: []string{"405 Method Not Allowed"}},
	{name: "invalid/regaut01", answers: []string{"401 Unauthorized"}},
	{name: "invalid/multi01", answers: []string{"400 More Than One CSeq"}},
	{name: "invalid/mcl01", answers: []string{"400 More Than One Content-Length"}},
	{name: "invalid/bcast", answers: silent},
	{name: "invalid/zeromf", answers: []string{"200 OK"}},
	{name: "invalid/cparam01", answers: []string{"401 Unauthorized"}},
	{name: "invalid/cparam02", answers: []string{"401 Unauthorized"}},
	{name: "invalid/regescrt", answers: []string{"401 Unauthorized"}},
	{name: "invalid/sdp01", answers: []string{"405 Method Not Allowed"}},
	{name: "invalid/inv2543", answers: []string{"405 Method Not Allowed"}, overTCP: []string{"400 Missing Content-Length"}},
}

// tortureDir is where the messages are: they come with the library that we parse
// URIs with.
func tortureDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("where the library is: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture")
}

func TestRFC4475(t *testing.T) {
	dir := tortureDir(t)
	tortured := newTortured(t)
	for _, m := range rfc4475 {
		data, err := os.ReadFile(filepath.Join(dir, m.name+".dat"))
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if !strings.Contains(text, "\r\n\r\n") {
			text += "\r\n" // that was lost on the way
		}
		if m.name == "valid/dblreq" {
			text = text[:len(text)-5] // its second body is longer than it says
		}
		tortured.try(m, text)
	}
	for _, kind := range []string{"valid", "invalid"} {
		files, _ := filepath.Glob(filepath.Join(dir, kind, "*.dat"))
		for _, file := range files {
			name := kind + "/" + strings.TrimSuffix(filepath.Base(file), ".dat")
			known := slices.ContainsFunc(rfc4475, func(m torture) bool { return m.name == name })
			if !known && name != "invalid/test" { // that isn't of the RFC
				t.Errorf("nobody says how %s is answered", name)
			}
		}
	}
}

// rfc5118 are the messages of RFC 5118 §4, as short as they can be.
var rfc5118 = []struct {
	torture
	text string
}{
	{torture{name: "4.1 valid message with an IPv6 reference", answers: []string{"401 Unauthorized"}},
		ipv6Message("REGISTER", "sip:[2001:db8::10]", "[2001:db8::9:1]", "Contact: \"Caller\" <sip:caller@[2001:db8::1]>\r\n")},
	{torture{name: "4.2 IPv6 without brackets", answers: []string{"400 Bad Request-URI"}},
		ipv6Message("REGISTER", "sip:2001:db8::10", "[2001:db8::9:1]", "")},
	{torture{name: "4.3 port inside the brackets", answers: []string{"401 Unauthorized"}},
		ipv6Message("REGISTER", "sip:[2001:db8::10:5070]", "[2001:db8::9:1]", "Contact: \"Caller\" <sip:caller@[2001:db8::1]>\r\n")},
	{torture{name: "4.4 port behind the brackets", answers: []string{"401 Unauthorized"}},
		ipv6Message("REGISTER", "sip:[2001:db8::10]:5070", "[2001:db8::9:1]", "Contact: \"Caller\" <sip:caller@[2001:db8::1]>\r\n")},
	{torture{name: "4.5 received with brackets", answers: []string{"481 Call/Transaction Does Not Exist"}},
		ipv6Message("BYE", "sip:[2001:db8::10]", "[2001:db8::9:1];received=[2001:db8::9:255]", "")},
	{torture{name: "4.5 received without brackets", answers: []string{"481 Call/Transaction Does Not Exist"}},
		ipv6Message("BYE", "sip:[2001:db8::10]", "[2001:db8::9:1];received=2001:db8::9:255", "")},
	{torture{name: "4.6 IPv6 in SDP", answers: []string{"405 Method Not Allowed"}},
		ipv6Message("INVITE", "sip:user@[2001:db8::10]", "[2001:db8::20]", "Contact: <sip:user@[2001:db8::10]>\r\nContent-Type: application/sdp\r\n")},
	{torture{name: "4.7 IPv6 and IPv4 in headers", answers: []string{"405 Method Not Allowed"}},
		ipv6Message("INVITE", "sip:user@[2001:db8::10]", "[2001:db8::9:1];branch=z9hG4bKas3-111, SIP/2.0/UDP 192.0.2.1;x=y", "Route: <sip:192.0.2.1;lr>\r\n")},
	{torture{name: "4.9 IPv4-mapped IPv6", answers: []string{"405 Method Not Allowed"}},
		ipv6Message("INVITE", "sip:user@example.com", "[::ffff:192.0.2.10]:19823", "Contact: <sip:T.desk@[::ffff:192.0.2.10]:19823>\r\n")},
	{torture{name: "4.10 three colons, as RFC 3261 has it", answers: []string{"400 Bad Request-URI"}},
		ipv6Message("OPTIONS", "sip:user@[2001:db8:::192.0.2.1]", "[2001:db8::9:1]", "")},
}

func ipv6Message(method, uri, sentBy, headers string) string {
	if !strings.Contains(sentBy, "branch") {
		sentBy += ";branch=z9hG4bKas3-111"
	}
	return fmt.Sprintf("%s %s SIP/2.0\r\nTo: <sip:user@example.com>\r\nFrom: <sip:user@example.com>;tag=81x2\r\nVia: SIP/2.0/UDP %s\r\n"+
		"Call-ID: %d@hello\r\nMax-Forwards: 70\r\nCSeq: 98176 %s\r\n%sContent-Length: 0\r\n\r\n", method, uri, sentBy, rand.Uint64(), method, headers)
}

func TestRFC5118(t *testing.T) {
	tortured := newTortured(t)
	for _, m := range rfc5118 {
		tortured.try(m.torture, m.text)
	}
}

// tortured is a door that shall survive, and an address to torture it from.
type tortured struct {
	*testing.T
	door *Door
	home net.IP
}

func newTortured(t *testing.T) *tortured {
	d := openDoor(t, &gate{}, func(c *Config) { c.Domains = []string{"sip.example.com", "example.com", "example.org"} })
	n := rand.Uint32()
	return &tortured{t, d, net.IPv4(127, byte(200+n%50), byte(n>>8), byte(1+n>>16%250))}
}

func (t *tortured) try(m torture, text string) {
	t.tryUDP(m, text)
	t.isAlive("udp", m.name)
	t.tryTCP(m, text)
	t.isAlive("tcp", m.name)
}

// isAlive asks for OPTIONS, over TCP on a new connection.
func (t *tortured) isAlive(network, after string) {
	t.Helper()
	began := time.Now()
	c := newClientOver(t.T, t.door, network)
	defer c.conn.Close()
	c.send(c.request("OPTIONS", bob, "", ""))
	if got := status(c.receive()); got != "200 OK" || time.Since(began) > promptly {
		t.Errorf("after %s over %s, OPTIONS is answered %s in %v", after, network, got, time.Since(began))
	}
}

var sentByPort = regexp.MustCompile(`(?i)\nv(?:ia)?[ \t]*:[^;,\r]*[^:;,\r]:(\d+)[;,\r]`)

const sentinel = "OPTIONS sip:sip.example.com SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bKsentinel\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n" +
	"Call-ID: sentinel\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"

// tryUDP sends a message from one port and looks for the answer where its Via
// wants it: on our address, at its port or 5060, or where it came from if it has
// rport.
func (t *tortured) tryUDP(m torture, text string) {
	t.Helper()
	from, err := net.ListenUDP("udp4", &net.UDPAddr{IP: t.home})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to := from
	if !strings.Contains(text, ";rport") {
		port := 5060
		if found := sentByPort.FindStringSubmatch(text); found != nil {
			port, _ = strconv.Atoi(found[1]) // digits
		}
		if to, err = net.ListenUDP("udp4", &net.UDPAddr{IP: t.home, Port: port}); err != nil {
			t.Fatal(err)
		}
		defer to.Close()
	}
	door := net.UDPAddrFromAddrPort(addressOf(t.door, "udp"))
	if _, err := from.WriteToUDP([]byte(text), door); err != nil {
		t.Fatal(err)
	}
	// What is answered by nothing is known by what is answered after it: one
	// worker handles what comes from one address and port.
	sentinel := strings.Replace(sentinel, "5060", strconv.Itoa(to.LocalAddr().(*net.UDPAddr).Port), 1)
	if _, err := from.WriteToUDP([]byte(sentinel), door); err != nil {
		t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []string
	for buffer := make([]byte, 65536); ; {
		n, err := to.Read(buffer)
		if err != nil {
			t.Errorf("%s over UDP: %q and then %v", m.name, got, err)
			return
		}
		if fieldOf(string(buffer[:n]), "Call-ID") == "sentinel" {
			break
		}
		got = append(got, status(string(buffer[:n])))
	}
	t.compare(m.name+" over UDP", got, m.answers, 1)
}

// tryTCP sends a message on a connection of its own, and reads what comes until
// the sentinel is answered or the door hangs up.
func (t *tortured) tryTCP(m torture, text string) {
	t.Helper()
	conn, err := dialDoor(t.door, "tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if m.unfinished {
		return
	}
	right, n := m.answers, min(1, len(m.answers))
	if m.overTCP != nil {
		right, n = m.overTCP, len(m.overTCP)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []string
	for {
		if len(got) == n {
			_, _ = conn.Write([]byte(sentinel)) // the door may have hung up by now
		}
		response, err := conn.next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s over TCP: %q and then silence", m.name, got)
			return
		}
		if err != nil || fieldOf(response, "Call-ID") == "sentinel" {
			break
		}
		got = append(got, status(response))
	}
	t.compare(m.name+" over TCP", got, right, n)
}

// compare wants so many answers, all among those that are right.
func (t *tortured) compare(what string, got, right []string, n int) {
	t.Helper()
	if len(right) == 0 {
		n = 0
	}
	if len(got) != n || slices.ContainsFunc(got, func(s string) bool { return !slices.Contains(right, s) }) {
		t.Errorf("%s: answered %q, right is %q", what, got, right)
	}
}

// TestTortureOfRegistrations: what the RFC says of registrations, for who has
// proved himself. Behind credentials are the fields that make each what it is.
func TestTortureOfRegistrations(t *testing.T) {
	for _, test := range []struct{ name, old, new, contact, status string }{
		{name: "regbadct", contact: "sip:user@example.com?Route=%3Csip:sip.example.com%3E", status: "400 Bad Contact"},
		{name: "regescrt", contact: "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>", status: "200 OK"},
		{name: "cparam01", contact: "sip:+19725552222@gw1.example.net;unknownparam", status: "200 OK"},
		{name: "cparam02", contact: "<sip:+19725552222@gw1.example.net;unknownparam>", status: "200 OK"},
		{name: "unksm2", old: "To: <sip:1001@sip.example.com>", new: "To: isbn:2983792873", contact: "<name:John_Smith>", status: "400 Bad Address-Of-Record"},
		{name: "unksm2, the contact alone", contact: "<name:John_Smith>", status: "400 Bad Contact"},
		{name: "escnull", old: "To: <sip:1001@", new: "To: <sip:null-%00-null@", contact: "<sip:%00@host5.example.com>", status: "400 Bad Address-Of-Record"},
		{name: "scalar02", contact: "<sip:user@host129.example.com>;expires=280297596632815", status: "200 OK"},
		{name: "scalar02, Expires", old: "Max-Forwards: 70", new: "Expires: 1" + strings.Repeat("0", 100), contact: "<sip:user@host129.example.com>", status: "200 OK"},
		{name: "scalar02, Max-Forwards", old: "Max-Forwards: 70", new: "Max-Forwards: 300", contact: "<sip:a@b>", status: "400 Bad Max-Forwards"},
	} {
		g := &gate{}
		d := openDoor(t, g, nil)
		c := newClient(t, d)
		c.login()
		const uri = "sip:sip.example.com"
		request := c.request("REGISTER", uri, c.credentials("REGISTER", uri)+"Contact: "+test.contact+"\r\n", "")
		c.send(strings.Replace(request, test.old, test.new, 1))
		got := c.receive()
		if status(got) != test.status {
			t.Errorf("%s: %s, want %s", test.name, status(got), test.status)
		}
		if isBound := len(g.bound()) > 0; isBound != (test.status == "200 OK") {
			t.Errorf("%s: %v", test.name, g.bound())
		}
		if strings.HasPrefix(test.name, "cparam") && (len(g.bound()) != 1 || strings.Contains(g.bound()[0].Contact, "unknownparam") != strings.Contains(test.contact, "<")) {
			t.Errorf("%s: of whom is the parameter? %v", test.name, g.bound()) // RFC 4475 §3.3.5, §3.3.6
		}
	}
}
