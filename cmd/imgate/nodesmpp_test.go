//go:build interop

package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// cyrillic is a text that takes more than one SMS.
var cyrillic = strings.Repeat("Съешь же ещё этих мягких французских булок, да выпей чаю. ", 5) + "Конец."

// TestNodeESME: node-smpp binds to us and does all that an ESME may.
func TestNodeESME(t *testing.T) {
	g := newSMPP(t, "")
	inbox := g.listen("1001")
	esme := runNode(t, "esme.js", g.door)
	bindNode(esme, "a")
	bindNode(esme, "b")

	t.Run("submit, both ways", func(t *testing.T) {
		r := ask(t, esme, "a", "submit_sm", event{"short_message": "from an ESME"})
		if r["status"] != 0.0 || len(r.text("id")) != 22 {
			t.Errorf("%v", r)
		}
		m := inbox.waitFor("the message", 1, func(e event) bool { return e["text"] == "from an ESME" })
		if m[0].text("from") != "+"+esmeNumber+"@sms.example.com" {
			t.Errorf("%v", m[0])
		}
		g.send("+"+esmeNumber+"@sms.example.com", cyrillic)
		got := esme.wait("deliver_sm", 1)
		if got[0].text("text") != cyrillic || got[0].text("from") != number {
			t.Errorf("%v", got)
		}
	})
	t.Run("parts in the wrong order, over two binds", func(t *testing.T) {
		parts := udhParts(cyrillic, 0x5a)
		var names []string
		for i := range parts {
			part := parts[len(parts)-1-i]
			part["registered_delivery"] = 1
			r := ask(t, esme, []string{"a", "b"}[i%2], "submit_sm", part)
			if r["status"] != 0.0 {
				t.Errorf("part %d: %v", len(parts)-i, r)
			}
			names = append(names, r.text("id"))
		}
		onceIn(t, inbox, cyrillic)
		if len(slices.Compact(slices.Clone(names))) != 1 {
			t.Errorf("the parts of a message have different names: %v", names)
		}
		receipts := esme.waitFor("a receipt", 1, isReceipt)
		if len(receipts) != 1 || !strings.Contains(receipts[0].text("text"), "id:"+names[0]+" ") {
			t.Errorf("for %s come %v", names[0], receipts)
		}
		expectState(t, esme, event{"id": names[0]}, delivered)
	})
	t.Run("query, replace and cancel what waits", func(t *testing.T) {
		replaced := ask(t, esme, "a", "submit_sm", event{"destination_addr": absent, "short_message": "the first word"})
		cancelled := ask(t, esme, "a", "submit_sm", event{"destination_addr": absent, "short_message": "never mind"})
		expectState(t, esme, replaced, enroute)
		if r := ask(t, esme, "b", "replace_sm", event{"message_id": replaced["id"], "short_message": "the last word"}); r["status"] != 0.0 {
			t.Errorf("replace_sm: %v", r)
		}
		if r := ask(t, esme, "b", "cancel_sm", event{"message_id": cancelled["id"], "destination_addr": absent}); r["status"] != 0.0 {
			t.Errorf("cancel_sm: %v", r)
		}
		late := g.listen("1003")
		onceIn(t, late, "the last word")
		if n := len(late.matching(isMessage)); n != 1 {
			t.Errorf("%d messages arrived for one that was replaced and one that was cancelled", n)
		}
		expectState(t, esme, replaced, delivered)
		expectState(t, esme, cancelled, deleted)
		if r := ask(t, esme, "a", "cancel_sm", event{"message_id": replaced["id"], "destination_addr": absent}); r["status"] == 0.0 {
			t.Error("a message that has arrived is cancelled")
		}
		if r := ask(t, esme, "a", "query_sm", event{"message_id": "AAAAAAAAAAAAAAAAAAAAAA"}); r["status"] != 0x0c+0.0 && r["status"] != 0x67+0.0 {
			t.Errorf("query_sm of nothing: %v", r)
		}
	})
	t.Run("submit_multi", func(t *testing.T) {
		second := g.listen("1002")
		r := ask(t, esme, "a", "submit_multi", event{"short_message": "to all", "dest_address": []event{
			{"dest_addr_ton": 1, "dest_addr_npi": 1, "destination_addr": number},
			{"dest_addr_ton": 5, "dest_addr_npi": 0, "destination_addr": "nobody"},
			{"dest_addr_ton": 1, "dest_addr_npi": 1, "destination_addr": later},
		}})
		failed, _ := r["failed"].([]any)
		if r["status"] != 0.0 || len(failed) != 1 {
			t.Errorf("%v", r)
		}
		onceIn(t, inbox, "to all")
		onceIn(t, second, "to all")
	})
	t.Run("what isn't allowed", func(t *testing.T) {
		if r := ask(t, esme, "a", "submit_sm", event{"source_addr": "15550100", "short_message": "not mine"}); r["status"] != 0x0a+0.0 {
			t.Errorf("another's number is answered %v", r)
		}
		esme.tell(event{"bind": "wrong", "as": "bind_transceiver", "pdu": event{"system_id": esmeID, "password": "guess"}})
		if bound := esme.waitFor("a bind", 1, func(e event) bool { return e.is("bound") && e["bind"] == "wrong" }); bound[0]["status"] == 0.0 {
			t.Errorf("a wrong password is answered %v", bound)
		}
	})
	t.Run("unbind", func(t *testing.T) {
		for _, name := range []string{"a", "b"} {
			esme.tell(event{"over": name, "send": "unbind", "pdu": event{}})
			esme.waitFor("the end of "+name, 1, func(e event) bool { return e.is("closed") && e["bind"] == name })
		}
		if n := len(esme.named("unbind_resp")); n != 2 {
			t.Errorf("%d unbinds are answered", n)
		}
		if said := g.send("+"+esmeNumber+"@sms.example.com", "for later"); !strings.HasPrefix(said, "accepted: ") {
			t.Errorf("a message to an ESME that isn't bound: %s", said)
		}
		bindNode(esme, "c")
		esme.waitFor("what was kept", 1, func(e event) bool { return e.is("deliver_sm") && e["text"] == "for later" })
	})
}

// bindNode binds an ESME made of node-smpp as a transceiver.
func bindNode(esme *script, name string) {
	esme.t.Helper()
	esme.tell(event{"bind": name, "as": "bind_transceiver", "pdu": event{"system_id": esmeID, "password": esmeSecret}})
	bound := esme.waitFor("a bind", 1, func(e event) bool { return e.is("bound") && e["bind"] == name })
	if bound[len(bound)-1]["status"] != 0.0 {
		esme.t.Fatalf("%v", bound)
	}
}

// ask sends a request over a bind and returns what its response says. What it
// doesn't say is from the ESME's number to the subscriber's.
func ask(t *testing.T, esme *script, over, command string, pdu event) event {
	t.Helper()
	addresses := event{"source_addr_ton": 1, "source_addr_npi": 1, "source_addr": esmeNumber}
	if _, multi := pdu["dest_address"]; command != "query_sm" && command != "replace_sm" && !multi {
		addresses["dest_addr_ton"], addresses["dest_addr_npi"], addresses["destination_addr"] = 1, 1, number
	}
	for name, value := range addresses {
		if _, said := pdu[name]; !said {
			pdu[name] = value
		}
	}
	tag := fmt.Sprint(t.Name(), len(esme.matching(func(event) bool { return true })))
	esme.tell(event{"over": over, "send": command, "pdu": pdu, "tag": tag})
	return esme.waitFor("a response to "+command, 1, func(e event) bool { return e["tag"] == tag })[0]
}

// States of a message as query_sm_resp has them (SMPP 3.4 §5.2.28).
const (
	enroute   = 1.0
	delivered = 2.0
	deleted   = 4.0
)

// expectState asks what became of a message.
func expectState(t *testing.T, esme *script, submitted event, want float64) {
	t.Helper()
	var r event
	if !until(func() bool {
		r = ask(t, esme, "b", "query_sm", event{"message_id": submitted["id"]})
		return r["state"] == want
	}) {
		t.Errorf("query_sm is answered %v, want state %v", r, want)
	}
}

// isReceipt tells a delivery receipt.
func isReceipt(e event) bool { return e.is("deliver_sm") && e["esm_class"] == 0x04+0.0 }

// isMessage tells the lines of `imgate listen --json`.
func isMessage(e event) bool { return e.text("text") != "" }

// onceIn waits for a text, and checks that it is there once.
func onceIn(t *testing.T, inbox *script, text string) {
	t.Helper()
	found := inbox.waitFor("the text", 1, func(e event) bool { return e["text"] == text })
	if len(found) != 1 {
		t.Errorf("%d times: %q", len(found), text)
	}
}

// udhParts are a text in parts of 67 characters of UCS-2, with an 8-bit reference
// (3GPP TS 23.040 §9.2.3.24.1).
func udhParts(text string, reference byte) (parts []event) {
	characters := []rune(text)
	total := (len(characters) + 66) / 67
	for n := range total {
		part := characters[n*67 : min(len(characters), n*67+67)]
		parts = append(parts, event{"udh": fmt.Sprintf("050003%02x%02x%02x", reference, total, n+1), "short_message": string(part), "data_coding": 8})
	}
	return parts
}

// TestNodeSMSC: our client is bound to an SMSC made of node-smpp, which is slow,
// wants less, breaks the connection, reports, and brings what phones send.
func TestNodeSMSC(t *testing.T) {
	g := newSMPP(t, "    dialect: {text: {long: udh}}\n")
	inbox := g.listen("1001")
	smsc := runNode(t, "smsc.js", g.vendor)
	if bound := smsc.wait("bound", 1)[0]; bound["system_id"] != "imgate" || bound["password"] != "sesame" {
		t.Fatalf("%v", bound)
	}
	esme := runNode(t, "esme.js", g.door)
	bindNode(esme, "a")
	c := &vendorTest{smppGateway: g, smsc: smsc, esme: esme}

	t.Run("a subscriber writes", func(t *testing.T) {
		if said := g.send("+4366410000001@sms.example.com", "hello vendor"); !strings.Contains(said, "accepted") {
			t.Errorf("the subscriber is told %s", said)
		}
		got := smsc.waitFor("the SMS", 1, func(e event) bool { return e.is("took") && e["text"] == "hello vendor" })
		if got[0]["from"] != number || got[0]["to"] != "4366410000001" {
			t.Errorf("%v", got)
		}
	})
	t.Run("long text", func(t *testing.T) {
		g.send("+4366410000002@sms.example.com", cyrillic)
		toHer := func(e event) bool { return e.is("took") && e["to"] == "4366410000002" }
		parts := smsc.waitFor("its parts", 5, toHer)
		var joined strings.Builder
		for _, part := range parts {
			joined.WriteString(part.text("text"))
		}
		if joined.String() != cyrillic {
			t.Errorf("%q", joined.String())
		}
	})
	t.Run("slow answers", func(t *testing.T) {
		c.behave(event{"delay": 200})
		defer c.behave(event{})
		c.once(t, c.burst("43664200", 100))
	})
	t.Run("a receipt", func(t *testing.T) {
		c.behave(event{"receipt": 50})
		defer c.behave(event{})
		g.send("+4366410000003@sms.example.com", "tell me")
		reported := smsc.wait("reported", 1)[0]
		if reported["status"] != 0.0 {
			t.Errorf("the receipt is answered %v", reported)
		}
		g.eventually("the message is delivered", func() bool {
			return strings.Contains(g.imgate("message", "list", "--to", "+4366410000003@sms.example.com", "--output", "json"), `"state":"delivered"`)
		})
	})
	t.Run("a receipt for an ESME", func(t *testing.T) {
		c.behave(event{"receipt": 50})
		defer c.behave(event{})
		r := ask(t, esme, "a", "submit_sm", event{"destination_addr": "4366410000004", "registered_delivery": 1, "short_message": "tell it"})
		got := esme.waitFor("a receipt", 1, isReceipt)
		if text := got[0].text("text"); got[0]["from"] != "4366410000004" || !strings.Contains(text, "id:"+r.text("id")+" ") || !strings.Contains(text, "stat:DELIVRD") {
			t.Errorf("for %v comes %v", r, got[0])
		}
	})
	t.Run("phones write, in parts", func(t *testing.T) {
		parts := udhParts(cyrillic, 0x77)
		slices.Reverse(parts)
		for _, part := range parts {
			part["source_addr_ton"], part["source_addr_npi"], part["source_addr"] = 1, 1, "4366410000009"
			part["dest_addr_ton"], part["dest_addr_npi"], part["destination_addr"] = 1, 1, number
		}
		smsc.tell(event{"deliver": parts})
		onceIn(t, inbox, cyrillic)
		for _, answer := range smsc.wait("delivered", len(parts)) {
			if answer["status"] != 0.0 {
				t.Errorf("%v", answer)
			}
		}
		parts[0]["destination_addr"], parts[0]["udh"], parts[0]["short_message"] = "15550100", nil, "to nobody of ours"
		smsc.tell(event{"deliver": parts[:1]})
		if answers := smsc.wait("delivered", len(parts)+1); answers[len(parts)]["status"] != 0x0b+0.0 {
			t.Errorf("what isn't for us is answered %v", answers[len(parts)])
		}
	})
	t.Run("a broken connection, and what nobody answered for is sent again", func(t *testing.T) {
		c.behave(event{"drop": 40, "delay": 50})
		c.atLeastOnce(t, c.burst("43664400", 100), 1)
	})
	t.Run("a broken connection, and what nobody answered for has failed", func(t *testing.T) {
		c.behave(event{"drop": 40, "delay": 50})
		c.atMostOnce(t, c.burst("44990000", 100))
		if failed := lines(g.imgate("message", "list", "--service", "once", "--state", "failed", "--output", "json")); failed == 0 || failed > 10 {
			t.Errorf("%d messages failed, want the window of 10 at most", failed)
		}
	})
	t.Run("throttled", func(t *testing.T) { // last: we are slower for a while
		c.behave(event{"throttle": true})
		sent := c.burst("43664300", 50)
		smsc.wait("throttled", 3)
		c.behave(event{})
		c.once(t, sent)
	})
}

func lines(text string) int { return strings.Count(text, "\n") }

// vendorTest is what goes from an ESME to an SMSC.
type vendorTest struct {
	*smppGateway
	smsc, esme *script
}

func (c *vendorTest) behave(how event) {
	c.t.Helper()
	before := len(c.smsc.named("behaves"))
	c.smsc.tell(event{"behave": how})
	c.smsc.wait("behaves", before+1)
}

// burst has the ESME submit n messages to ten numbers, and returns their texts
// when we have accepted all of them.
func (c *vendorTest) burst(prefix string, n int) (texts []string) {
	c.t.Helper()
	to := make([]string, 10)
	for i := range to {
		to[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	toThem := func(e event) bool { return e.is("submitted") && strings.Contains(e.text("text"), " "+prefix) }
	c.esme.tell(event{"over": "a", "burst": n, "window": 20, "from": []string{esmeNumber}, "to": to})
	for _, e := range c.esme.waitFor("all to be accepted", n, toThem) {
		if e["status"] != 0.0 {
			c.t.Fatalf("%v", e)
		}
	}
	for i := range n {
		texts = append(texts, fmt.Sprintf("%s %s %d", esmeNumber, to[i%len(to)], i))
	}
	return texts
}

// arrivals are how often, and in which order, the SMSC took these texts.
func (c *vendorTest) arrivals(texts []string) (order []string, times map[string]int) {
	times = map[string]int{}
	for _, text := range texts {
		times[text] = 0
	}
	for _, e := range c.smsc.named("took") {
		if _, ours := times[e.text("text")]; ours {
			order = append(order, e.text("text"))
			times[e.text("text")]++
		}
	}
	return order, times
}

// once checks that all come once, and to each number in order.
func (c *vendorTest) once(t *testing.T, texts []string) {
	t.Helper()
	c.atLeastOnce(t, texts, 0)
	order, _ := c.arrivals(texts)
	last := map[string]int{}
	for _, text := range order {
		var from, to string
		var n int
		if _, err := fmt.Sscanf(text, "%s %s %d", &from, &to, &n); err != nil {
			t.Fatal(err)
		}
		if before, any := last[to]; any && n <= before {
			t.Errorf("to %s number %d comes after %d", to, n, before)
		}
		last[to] = n
	}
}

// atLeastOnce checks that all come, and none more than so many times again.
func (c *vendorTest) atLeastOnce(t *testing.T, texts []string, again int) {
	t.Helper()
	missing := func() (n int) {
		_, times := c.arrivals(texts)
		for _, count := range times {
			if count == 0 {
				n++
			}
		}
		return n
	}
	if !until(func() bool { return missing() == 0 }) {
		t.Errorf("%d messages don't arrive", missing())
	}
	c.ended(t)
	order, times := c.arrivals(texts)
	for text, count := range times {
		if count > 1+again {
			t.Errorf("%q comes %d times", text, count)
		}
	}
	t.Logf("%d messages, %d of them sent again", len(texts), len(order)-len(texts))
}

// atMostOnce checks that none comes twice.
func (c *vendorTest) atMostOnce(t *testing.T, texts []string) {
	t.Helper()
	c.ended(t)
	order, times := c.arrivals(texts)
	for text, count := range times {
		if count > 1 {
			t.Errorf("%q comes %d times", text, count)
		}
	}
	t.Logf("%d messages, %d of them not sent", len(texts), len(texts)-len(order))
}

// ended waits until nothing is under way but what waits for its receipt.
func (c *vendorTest) ended(t *testing.T) {
	t.Helper()
	underWay := func() (list string) {
		for _, state := range []string{"waiting", "sending", "quarantined"} {
			list += c.imgate("message", "list", "--state", state, "--output", "json")
		}
		return list
	}
	if !until(func() bool { return underWay() == "" }) {
		t.Errorf("these haven't ended:\n%s", tail([]byte(underWay()), 2000))
	}
}
