package tools

import (
	"cmp"
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// What is assumed of a message of which nothing is said: a subscriber writes to
// another one, who has one device. evalLong says the same.
const (
	sampleID        = "01890a5d-ac96-774b-bcce-b302099a8057"
	sampleText      = "Hello"
	sampleSender    = "1001@sip.example.com"
	sampleRecipient = "1002@sip.example.com"
	sampleTransport = "sip"
	samplePeer      = "192.0.2.1"
)

var sampleTime = time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC) // a Friday

// complete assumes what isn't said, and derives what follows from the rest.
func (d *draft) complete(zone *time.Location) plugin.Question {
	d.completeMessage()
	s, r := &d.question.Sender, &d.question.Recipient
	d.completeAddress("sender", sampleSender, &s.Address, &s.User, &s.Domain)
	d.completeAddress("recipient", sampleRecipient, &r.Address, &r.User, &r.Domain)
	d.assume("sender.account", d.question.Sender.Address)
	d.assume("sender.number", "")
	d.assume("sender.attributes", map[string]string{})
	d.completeRecipient()
	d.assume("transport", sampleTransport)
	d.derive("protocol", cmp.Or(d.protocols[d.question.Transport], d.question.Transport))
	d.derive("sender.local", d.question.Sender.Account != d.question.Transport)
	d.assume("peer", samplePeer)
	d.assume("time", sampleTime)
	d.question.Time = d.question.Time.UTC()
	d.completeClock(zone)
	d.assume("counters", map[string]int{})
	return d.question
}

// assume sets a field that isn't said.
func (d *draft) assume(path string, value any) {
	if d.derive(path, value) {
		d.assumed = append(d.assumed, path)
	}
}

// derive sets a field that isn't said and follows from others.
func (d *draft) derive(path string, value any) bool {
	if d.said[path] {
		return false
	}
	d.say(path, value)
	return true
}

func (d *draft) completeMessage() {
	m := &d.question.Message
	d.assume("message.id", sampleID)
	d.assume("message.type", "text/plain")
	d.derive("message.class", content.ClassOf(m.Type).String())
	d.derive("message.inner", "")
	if m.Class == message.Text.String() {
		d.assume("message.text", sampleText)
	}
	d.derive("message.text", "")
	d.derive("message.size", len(*m.Text))
	segments := 0
	if *m.Text != "" {
		segments = content.Segments(*m.Text)
	}
	d.derive("message.segments", segments)
	d.derive("message.missing", 0)
}

// completeAddress makes an address of its parts, or the parts of it.
func (d *draft) completeAddress(party, sample string, address, user, domain *string) {
	said := func(name string) bool { return d.said[party+"."+name] }
	switch {
	case said("address"):
	case !said("user") && !said("domain"):
		d.assume(party+".address", sample)
	default:
		sampleUser, sampleDomain, _ := strings.Cut(sample, "@")
		d.assume(party+".user", sampleUser)
		d.assume(party+".domain", sampleDomain)
		d.say(party+".address", message.Address{User: *user, Host: strings.ToLower(*domain)}.String())
	}
	d.divideAddress(party, *address)
}

// completeRecipient: one in the sender's domain is one of ours; one of ours has
// a device.
func (d *draft) completeRecipient() {
	r := &d.question.Recipient
	switch {
	case d.said["recipient.account"]:
		d.derive("recipient.local", r.Account != "")
	case r.Registered || r.Devices > 0:
		d.derive("recipient.local", true)
	}
	d.assume("recipient.local", r.Domain == d.question.Sender.Domain)
	account := ""
	if r.Local {
		account = r.Address
	}
	d.derive("recipient.account", account)
	d.assume("recipient.attributes", map[string]string{})
	if d.said["recipient.devices"] {
		d.derive("recipient.registered", r.Devices > 0)
	}
	d.assume("recipient.registered", r.Local)
	devices := 0
	if r.Registered {
		devices = 1
	}
	d.derive("recipient.devices", devices)
}

// completeClock shows the time in the zone, but for what is said of the clock.
func (d *draft) completeClock(zone *time.Location) {
	clock := plugin.ClockAt(d.question.Time, zone)
	if zone == time.UTC {
		d.assume("clock.zone", clock.Zone)
	}
	d.derive("clock.zone", clock.Zone)
	d.derive("clock.date", clock.Date)
	d.derive("clock.time", clock.Time)
	d.derive("clock.weekday", clock.Weekday)
	d.derive("clock.hour", clock.Hour)
	d.derive("clock.minute", clock.Minute)
}

// zone is the one that was asked for, else the one that the question names.
func (d *draft) zone(asked string) (*time.Location, error) {
	return time.LoadLocation(cmp.Or(asked, d.question.Clock.Zone, "UTC"))
}

// supply is what the policy may ask for beside the question, which it takes
// away from it.
func supply(q *plugin.Question) plugin.Given {
	given := plugin.Given{Counters: q.Counters}
	if q.Message.Text != nil {
		given.Words = *q.Message.Text
	}
	if len(given.Words) > plugin.MaxQuestionText {
		given.Words = strings.ToValidUTF8(given.Words[:plugin.MaxQuestionText], "")
	}
	q.Message.Text, q.Counters = nil, nil
	return given
}

// value returns what a field of a question is, as JSON.
func valueAt(q plugin.Question, path string) string {
	f, _, _ := find(path)
	text, err := json.Marshal(reflect.ValueOf(q).FieldByIndex(f.index).Interface())
	if err != nil {
		return err.Error() // a Question is made of texts and numbers
	}
	return string(text)
}
