//go:build interop

package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// everyScript is a text that no phone may harm.
const everyScript = "äöü привет 你好 ✓"

// The doors of the gateway with certificates.
const (
	secureGateway = host + ":5061"
	webGateway    = host + ":8443"
)

// handset is a program of somebody else's that registers as a user of the gateway.
type handset interface {
	// send has it send a text to another user, and waits until it was taken.
	send(to, text string)
	// got waits until it shows a text from another user, word for word.
	got(from, text string)
}

// TestMatrix: phones of every make message each other, each over what it uses most,
// and every text arrives as it was.
func TestMatrix(t *testing.T) {
	newSecureGateway(t, "1001", "1002", "1003", "1004")
	users := []string{"1001", "1002", "1003", "1004"}
	phones := map[string]handset{
		"1001": baresipPhone{startBaresip(t, "udp", "1001", users[1:]...)},
		"1002": startLinphone(t, "1002", "tls"),
		"1003": startSippPhone(t, "1003"),
		"1004": startBrowser(t, "phone.js", "1004"),
	}
	// Whoever takes an envelope shows what is in it or the envelope, as it likes.
	phones["1002"].(linphonePhone).tell(event{"do": "plain"})
	for _, from := range users {
		for _, to := range users {
			if from == to {
				continue
			}
			t.Run(fmt.Sprintf("%s to %s", makes[from], makes[to]), func(t *testing.T) {
				text := fmt.Sprintf("%s, %s to %s", everyScript, from, to)
				phones[from].send(to, text)
				phones[to].got(from, text)
			})
		}
	}
}

var makes = map[string]string{"1001": "baresip", "1002": "liblinphone", "1003": "sipp", "1004": "JsSIP"}

// newSecureGateway starts the program with listeners for UDP, TCP, TLS and secure
// WebSockets.
func newSecureGateway(t *testing.T, users ...string) *server {
	t.Helper()
	s := newServer(t, gateway)
	certificate, key := selfSigned(t, host)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf(`["udp://%s", "tcp://%[1]s"]`, gateway)
	more := fmt.Sprintf(`["udp://%s", "tcp://%[1]s", "tls://%s", "wss://%s"]
    tls: {certificate: %q, key: %q}`, gateway, secureGateway, webGateway, certificate, key)
	if !bytes.Contains(text, []byte(listen)) {
		t.Fatalf("no listeners to add to:\n%s", text)
	}
	text = bytes.Replace(text, []byte(listen), []byte(more), 1)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.importAccounts(users)
	return s
}

// selfSigned writes a certificate for a server at an address, and its key.
func selfSigned(t *testing.T, address string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sip.example.com"},
		DNSNames: []string{"sip.example.com"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}

// baresipPhone is a baresip, of which what it traces is known.
type baresipPhone struct{ *baresip }

func (p baresipPhone) send(to, text string) {
	p.t.Helper()
	p.choose(to)
	p.baresip.send(text)
	p.waitFor(`(?m)^MESSAGE sip:` + to + `@[^~]*?` + regexp.QuoteMeta(text) + `[^~]*?^SIP/2\.0 200 OK\r$[^~]*?CSeq: \d+ MESSAGE`)
}

func (p baresipPhone) got(from, text string) {
	p.t.Helper()
	p.waitFor(`(?m)^MESSAGE sip:1001[^~]*?^From:[^\r\n]*sip:` + from + `@[^~]*?\r\n\r\n` + regexp.QuoteMeta(text))
}

// linphonePhone is a phone made of liblinphone.
type linphonePhone struct{ *script }

// startLinphone starts testdata/linphone/phone.py, and waits until it is registered.
func startLinphone(t *testing.T, user, network string) linphonePhone {
	t.Helper()
	need(t, "linphone-daemon", "linphone-cli")
	p := linphonePhone{run(t, exec.Command(need(t, "python3", "python3"), filepath.Join("testdata", "linphone", "phone.py"),
		t.TempDir(), "sip:"+at(network)+";transport="+network, user, "sip.example.com", password))}
	p.wait("registered", 1)
	return p
}

func (p linphonePhone) send(to, text string) {
	p.t.Helper()
	p.tell(event{"do": "message", "to": to, "text": text, "tag": text})
	p.waitFor("the message to be taken", 1, func(e event) bool {
		return e["tag"] == text && strings.HasPrefix(e.text("state"), "delivered") // a notification may be faster
	})
}

func (p linphonePhone) got(from, text string) {
	p.t.Helper()
	p.waitFor("a message from "+from, 1, func(e event) bool { return e.is("message") && e["from"] == from && e["text"] == text })
}

// sippPhone is a sipp that takes messages, and another one for each that it sends.
type sippPhone struct {
	*peer
	user string
	log  string
}

func startSippPhone(t *testing.T, user string) handset {
	t.Helper()
	p := sippPhone{peer: newPeer(t), user: user}
	p.log = filepath.Join(p.dir, "inbox.log")
	command := p.command("receive.xml", "-m", "1000", "-p", inbox, "-trace_msg", "-message_file", p.log)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	p.register(user)
	return p
}

func (p sippPhone) send(to, text string) {
	p.t.Helper()
	scenario, err := os.ReadFile(filepath.Join("testdata", "sipp", "message.xml"))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.dir, "text.xml")
	own := strings.NewReplacer("number=[call_number];\n    ]]>", "[field3]]]>", "[answer]", "200").Replace(string(scenario))
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		p.t.Fatal(err)
	}
	command := p.command("message.xml", "-m", "1", "-p", "15312", "-inf", p.data("text", p.user, credentials(p.user), to, text))
	command.Args[3] = file
	p.run("send", command)
}

func (p sippPhone) got(from, text string) {
	p.t.Helper()
	whole := []byte("\r\n\r\n" + text)
	sender := []byte("sip:" + from + "@")
	arrived := func() bool {
		log, _ := os.ReadFile(p.log) // it is written by another process
		for one := range bytes.SplitSeq(log, []byte("UDP message received")) {
			if bytes.Contains(one, whole) && bytes.Contains(one, sender) {
				return true
			}
		}
		return false
	}
	if !until(arrived) {
		p.t.Errorf("sipp didn't get %q", text)
	}
}

// browserPhone is a phone in headless Chromium.
type browserPhone struct{ *script }

// startBrowser starts a phone of testdata/browser in a page, and waits until it is registered.
func startBrowser(t *testing.T, script, user string) browserPhone {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join("..", "..", ".ci", "peers", "browser", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(need(t, "node", "nodejs"), filepath.Join("testdata", "browser", "browser.js"),
		need(t, "chromium", "chromium"), script, "wss://"+webGateway+"/", user, "sip.example.com", password)
	p := browserPhone{run(t, command, "NODE_PATH="+modules)}
	p.wait("registered", 1)
	return p
}

func (p browserPhone) send(to, text string) {
	p.t.Helper()
	p.tell(event{"do": "message", "to": to, "text": text, "tag": text})
	p.waitFor("the answer", 1, func(e event) bool { return e.is("answer") && e["tag"] == text && e["status"] == 200.0 })
}

func (p browserPhone) got(from, text string) {
	p.t.Helper()
	p.waitFor("a message from "+from, 1, func(e event) bool { return e.is("message") && e["from"] == from && e["text"] == text })
}
