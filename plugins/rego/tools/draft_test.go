package tools

import (
	"testing"
	"time"
)

// FuzzDraft: whatever a file and the command line say, there is an error or a
// whole question.
func FuzzDraft(f *testing.F) {
	for _, seed := range [][2]string{
		{`{}`, "time=2026-01-02T03:04:05Z"},
		{`{"recipient": {"domain": "x.example.com"}, "message": {"text": "Hi", "expires": 0}}`, "recipient.user=3"},
		{`{"sender": {"attributes": {"a": "b"}}, "clock": {"zone": "Europe/Vienna"}}`, "counters.a.b=3"},
		{`{"message": {"class": "composing"}}`, "recipient.devices=2"},
		{`{"recipient": {"account": ""}}`, "recipient.attributes.=x"},
	} {
		f.Add([]byte(seed[0]), seed[1])
	}
	f.Fuzz(func(t *testing.T, file []byte, assignment string) {
		d := newDraft(nil)
		if d.readJSON(file) != nil || d.set(assignment) != nil {
			return
		}
		q := d.complete(time.UTC)
		for _, field := range questionFields() {
			if field.path != "message.expires" && !d.said[field.path] {
				t.Errorf("%s %s: %s is missing", file, assignment, field.path)
			}
		}
		if q.Sender.Attributes == nil || q.Recipient.Attributes == nil || q.Counters == nil || q.Message.Text == nil {
			t.Errorf("%s %s: %+v", file, assignment, q)
		}
		if given := supply(&q); q.Message.Text != nil || q.Counters != nil || given.Counters == nil {
			t.Errorf("%s %s: %+v", file, assignment, q)
		}
	})
}
