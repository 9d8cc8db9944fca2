//go:build interop

package main_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNetSMPP: Net::SMPP, of 2001, binds to us, submits, takes a message and
// unbinds.
func TestNetSMPP(t *testing.T) {
	g := newSMPP(t, "")
	inbox := g.listen("1001")
	perl := need(t, "perl", "perl")
	if err := exec.CommandContext(t.Context(), perl, "-MNet::SMPP", "-e", "1").Run(); err != nil {
		t.Fatalf("Net::SMPP is missing: install Debian's package libnet-smpp-perl: %v", err)
	}
	host, port := splitAddress(t, g.door)
	esme := run(t, exec.Command(perl, filepath.Join("testdata", "smpp", "esme.pl"), host, port, esmeID, esmeSecret, esmeNumber, number))
	if bound := esme.wait("bound", 1)[0]; bound["status"] != 0.0 || bound["system_id"] != "imgate" {
		t.Errorf("%v", bound)
	}
	for _, r := range esme.wait("submit_sm_resp", 2) {
		if r["status"] != 0.0 || len(r.text("id")) != 22 {
			t.Errorf("%v", r)
		}
	}
	onceIn(t, inbox, "Grüße von Perl")
	onceIn(t, inbox, "euro € at @")

	g.send("+"+esmeNumber+"@sms.example.com", "Привет, Перл")
	if got := esme.wait("deliver_sm", 1)[0]; got["text"] != "Привет, Перл" || got["from"] != number || got["to"] != esmeNumber {
		t.Errorf("%v", got)
	}
	if r := esme.wait("unbind_resp", 1)[0]; r["status"] != 0.0 {
		t.Errorf("%v", r)
	}
}
