package ladder

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// story tells a ladder of things that happen one after the other.
type story struct {
	l   *Ladder
	now time.Time
	m   *message.Message
}

var (
	storyBegan = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	alicePhone = netip.MustParseAddrPort("198.51.100.7:5060")
	bobPhone   = netip.MustParseAddrPort("203.0.113.20:41234")
	bobTablet  = netip.MustParseAddrPort("[2001:db8:85a3:8d3:1319:8a2e:370:7348]:5061")
	ourAddress = netip.MustParseAddrPort("192.0.2.1:5060")
)

func storyMessage(n byte) *message.Message {
	return &message.Message{
		ID:        message.ID{0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b, 0xbc, 0xce, 0xb3, 0x02, 0x09, 0x9a, 0x80, n},
		PublicID:  fmt.Sprintf("AbCdEfGhIjKlMnOpQrSt%02d", n),
		From:      message.Address{User: "1001", Host: "sip.example.com"},
		Recipient: message.Address{User: "1002", Host: "sip.example.com"},
		Body:      []byte("a secret"), Received: storyBegan,
	}
}

func newStory(l *Ladder) *story { return &story{l: l, now: storyBegan, m: storyMessage(1)} }

func (s *story) after(d time.Duration) *story {
	s.now = s.now.Add(d)
	return s
}

func (s *story) packet(sent bool, peer netip.AddrPort, call, what, detail, data string) {
	s.l.Packet(&plugin.Packet{
		Time: s.now, Transport: "sip", Protocol: "sip", Network: "udp", Sent: sent, Local: ourAddress, Remote: peer,
		Call: call, Title: [2]string{what, detail}, Data: []byte(call + what + detail + data + s.m.PublicID + "\r\n\r\na secret"),
	})
}

func (s *story) says(peer netip.AddrPort, call, what, detail, data string) {
	s.packet(false, peer, call, what, detail, data)
}

func (s *story) hears(peer netip.AddrPort, call, what, detail, data string) {
	s.packet(true, peer, call, what, detail, data)
}

func (s *story) step(name plugin.StepName, took time.Duration, fill func(*plugin.Step)) {
	step := &plugin.Step{Name: name, Message: s.m, Began: s.now.Add(-took), Ended: s.now}
	if fill != nil {
		fill(step)
	}
	s.l.Step(step)
}

const (
	aliceCall  = "3848276298220188511@atlanta.example.com"
	phoneCall  = "Xk3vFzQm1bYtR8nWcPa0uA"
	tabletCall = "p9LmN2sTqVwXyZ01AbCdEf"
)

// tell is a message with a challenge, one device that takes it at the second
// try and one that doesn't answer.
func (s *story) tell() {
	of := s.m.PublicID[20:]
	alice, phone, tablet := of+aliceCall, of+phoneCall, of+tabletCall
	s.says(alicePhone, alice, "MESSAGE", "sip:1002@sip.example.com", "1")
	s.after(310*time.Microsecond).hears(alicePhone, alice, "401", "Unauthorized", "1")
	s.after(14*time.Millisecond).says(alicePhone, alice, "MESSAGE", "sip:1002@sip.example.com", "2")
	s.after(120*time.Microsecond).step(plugin.StepReceived, 0, func(p *plugin.Step) { p.Call, p.Transport = alice, "sip" })
	s.after(90*time.Microsecond).step(plugin.StepDecided, 48*time.Microsecond, func(p *plugin.Step) { p.Service = "on_net" })
	s.after(20*time.Microsecond).step(plugin.StepAuthorized, 6*time.Microsecond, nil)
	s.after(1300*time.Microsecond).step(plugin.StepStored, 1280*time.Microsecond, nil)
	s.after(80*time.Microsecond).hears(bobPhone, phone, "MESSAGE", "sip:1002@203.0.113.20:41234", "")
	s.after(10*time.Microsecond).hears(bobTablet, tablet, "MESSAGE", "sip:1002@[2001:db8:85a3:8d3:1319:8a2e:370:7348]:5061;transport=udp", "")
	s.after(500*time.Millisecond).hears(bobPhone, phone, "MESSAGE", "sip:1002@203.0.113.20:41234", "")
	s.hears(bobTablet, tablet, "MESSAGE", "sip:1002@[2001:db8:85a3:8d3:1319:8a2e:370:7348]:5061;transport=udp", "")
	s.after(38*time.Millisecond).says(bobPhone, phone, "200", "OK", "")
	s.step(plugin.StepAttempted, 538*time.Millisecond, func(p *plugin.Step) {
		p.Call, p.Transport, p.Attempt, p.Peer = phone, "sip", 1, "sip:1002@203.0.113.20:41234"
	})
	s.step(plugin.StepDelivered, 0, func(p *plugin.Step) { p.Transport = "sip" })
	s.after(200*time.Microsecond).hears(alicePhone, alice, "200", "OK", "2")
	s.after(31*time.Second).step(plugin.StepAttempted, 32*time.Second, func(p *plugin.Step) {
		p.Call, p.Transport, p.Attempt, p.Reason = tablet, "sip", 1, message.NoAnswer
	})
	s.after(time.Millisecond).step(plugin.StepWaiting, 0, func(p *plugin.Step) { p.Reason = message.NoAnswer })
}

// tellRefused is a message from somebody who writes badly.
func tellRefused(l *Ladder) {
	s := newStory(l)
	s.says(alicePhone, "\x1b[31mcall<&>", "MESSAGE", "sip:\x1b]0;owned\a\u202e1002@<script>alert(1)</script>", "")
	s.after(100*time.Microsecond).step(plugin.StepReceived, 0, func(p *plugin.Step) { p.Call, p.Transport = "\x1b[31mcall<&>", "sip" })
	s.after(50*time.Microsecond).step(plugin.StepRefused, 1500*time.Microsecond, func(p *plugin.Step) { p.Reason = message.UnknownRecipient })
	s.after(10*time.Microsecond).hears(alicePhone, "\x1b[31mcall<&>", "404", "Not Found", "")
}

// tellMany is a message to more devices than there are columns.
func tellMany(l *Ladder) {
	s := newStory(l)
	s.says(alicePhone, aliceCall, "MESSAGE", "sip:1002@sip.example.com", "1")
	s.step(plugin.StepReceived, 0, func(p *plugin.Step) { p.Call, p.Transport = aliceCall, "sip" })
	for i := range byte(30) {
		device := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, i}), 5060)
		call := fmt.Sprintf("call-%d", i)
		s.after(time.Millisecond).hears(device, call, "MESSAGE", "sip:1002@"+device.String(), "")
		s.after(90*time.Millisecond).says(device, call, "486", "Busy Here", "")
		s.step(plugin.StepAttempted, 90*time.Millisecond, func(p *plugin.Step) {
			p.Call, p.Transport, p.Attempt, p.Reason = call, "sip", int(i)+1, message.Busy
		})
	}
	s.step(plugin.StepFailed, 0, func(p *plugin.Step) { p.Reason = message.Busy })
}
