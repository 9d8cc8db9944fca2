package tools

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// masked takes out what differs from run to run, and from version to version.
func masked(text string) string {
	for pattern, with := range map[string]string{
		`[0-9.]+(µs|ms|s)(\n|,|$)`:            "TIME$2",
		`time="[0-9.]+"`:                      `time="TIME"`,
		`"seconds": [0-9.e-]+`:                `"seconds": 0`,
		`(revision"?:? +)"?[0-9A-Za-z._-]+"?`: "${1}REVISION",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	return text
}

// said is all that a command said, as a person sees it.
func (r ran) said() string {
	text := r.out
	if r.err != "" {
		text += "-- standard error\n" + r.err
	}
	if r.failure != nil {
		text += "-- error\n" + r.failure.Error() + "\n"
	}
	return masked(text)
}

// TestCommands holds what commands say against testdata/said.
func TestCommands(t *testing.T) {
	t.Chdir("testdata")
	for name, line := range map[string]string{
		"test":             "policy test good",
		"test-verbose":     "policy test --verbose good --coverage 50",
		"test-json":        "policy test good --output json --run pin",
		"test-low":         "policy test good --coverage 90",
		"test-failing":     "policy test failing",
		"test-junit":       "policy test failing --output junit --coverage 90",
		"test-broken":      "policy test bad",
		"test-broken-json": "policy test bad --output json",
		"test-broken-xml":  "policy test bad --output junit",
		"test-nowhere":     "policy test nowhere",
		"check":            "policy check --dir good",
		"check-json":       "policy check good --output json",
		"check-bad":        "policy check bad",
		"check-bad-json":   "policy check bad --output json",
		"check-failing":    "policy check failing",
		"eval":             "policy eval good --message messages/captured.sip --zone Europe/Vienna",
		"eval-explain":     "policy eval good --message messages/sms.json --explain",
		"eval-explained":   "policy eval good --message messages/captured.sip --explain --output json",
		"eval-json":        "policy eval good --message messages/captured.sip --output json",
		"eval-reject":      "policy eval good --message messages/cpim.sip --set message.text=What's_your_PIN_code?",
		"eval-limit":       "policy eval good --message messages/cpim.sip --set counters.per_sender=10",
		"eval-type":        "policy eval good --message messages/cpim.sip --set message.type=text/html",
		"eval-unknown":     "policy eval good --message messages/sms.json --set recipient.address=2@elsewhere.example.com",
		"eval-none":        "policy eval good --message messages/sms.json --set recipient.address=2@elsewhere.example.com --set recipient.local=true",
		"eval-error":       "policy eval failing --message messages/sms.json --set recipient.domain=failing.example.com --output json",
		"eval-bad":         "policy eval bad --message messages/sms.json",
		"domains":          "policy domains 447700900123@sms.example.com good",
		"domains-json":     "policy domains sip:2@sip.example.com good --output json",
		"domains-nobody":   "policy domains +447700900123 good",
		"domains-builtin":  "policy domains +447700900123",
	} {
		words := strings.Fields(line)
		for i, word := range words {
			words[i] = strings.ReplaceAll(word, "_PIN_", " PIN ")
		}
		got := imgate(t, words[0]+" "+words[1], "", words[2:]...)
		golden(t, "said/"+name+".txt", "$ imgate "+line+"\n"+got.said())
		if isUsage(got.failure) {
			t.Errorf("%s: wrong usage: %v", line, got.failure)
		}
	}
}

func TestWrongUsageOfCommands(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"policy test a b", "expected one directory, found a and b"},
		{"policy test a --dir b", "expected one directory"},
		{"policy test --run (", "--run: expected a regular expression"},
		{"policy test --coverage 101", "expected a number from 0 to 100"},
		{"policy test --coverage NaN", "expected a number from 0 to 100"},
		{"policy test --output xml", "expected human or json or junit"},
		{"policy check --output junit", "expected human or json"},
		{"policy fmt", "expected files or directories"},
		{"policy eval", "expected a message"},
		{"policy eval --message - --set recipient", "expected PATH=VALUE"},
		{"policy eval --message - --set recipient.foo=1", "recipient.foo: the question has no such field, expected one of recipient.address, "},
		{"policy eval --message - --set recipient=1", "recipient: the question has no such field, expected one of message.id, "},
		{"policy eval --message - --set foo=1", "foo: the question has no such field, expected one of message.id, "},
		{"policy eval --message - --set counters=1", "counters: expected the name of an entry"},
		{"policy eval --message - --set counters.a=one", "counters.a=one: expected a whole number"},
		{"policy eval --message - --set recipient.local=maybe", "expected true or false"},
		{"policy eval --message - --set time=noon", "expected a time, such as 2026-01-02T03:04:05Z"},
		{"policy eval --message - --set message.class=poem", "expected one of text, composing"},
		{"policy eval --message - --set counters.a=1", "counters.a: service onnet declares no limits"},
		{"policy eval --message - --zone Mars/Olympus", "--zone: expected the name of a time zone"},
		{"policy eval --message - --set clock.zone=Mars/Olympus", "clock.zone=Mars/Olympus: expected the name of a time zone"},
		{"policy eval --message - --set sender.address=x@", "sender.address=x@: expected user@domain, or a number"},
		{"policy eval --message - --set recipient.domain=a..b", "recipient.domain=a..b: expected a domain"},
		{"policy eval --message - --set clock.hour=25", "clock.hour=25: expected a whole number from 0 to 23"},
		{"policy eval --message - --set message.size=-5", "message.size=-5: expected a whole number, 0 or more"},
		{"policy eval --message - --set counters.a=-1", "counters.a=-1: expected a whole number, 0 or more"},
		{"policy domains 1@a_b..com", "expected a domain, such as sip.example.com"},
		{"policy domains", "expected an address"},
		{"policy domains nobody", "expected user@domain or a number"},
		{"policy domains a@b@c", "not an address"},
		{"policy domains 1 a b", "expected one directory, found a and b"},
		{"policy init", "expected a directory"},
		{"policy init a b", "expected a directory"},
		{"policy init --service nothing a", "expected one of border, onnet, "},
	} {
		words := strings.Fields(c.line)
		got := imgate(t, words[0]+" "+words[1], "{}", words[2:]...)
		byFlags := strings.HasPrefix(c.want, "expected a number from") || strings.HasPrefix(c.want, "expected human") || strings.Contains(c.line, "--service")
		if got.failure == nil || !strings.Contains(got.failure.Error(), c.want) || isUsage(got.failure) == byFlags || got.out != "" {
			t.Errorf("%s: %+v, want %q", c.line, got, c.want)
		}
	}
}

// evaluated is the question that a message makes.
func evaluated(t *testing.T, message string, args ...string) (q map[string]any, assumed string) {
	t.Helper()
	got := imgate(t, "policy eval", message, append([]string{"--message", "-", "--output", "json"}, args...)...)
	var document struct {
		Question map[string]any
		Assumed  []string
	}
	if err := json.Unmarshal([]byte(got.out), &document); err != nil {
		t.Fatalf("%q %q: %+v", message, args, got)
	}
	return document.Question, strings.Join(document.Assumed, " ")
}

// TestQuestionsInPart: what isn't said follows from what is, or is assumed.
func TestQuestionsInPart(t *testing.T) {
	for _, c := range []struct {
		message string
		set     []string
		want    map[string]string // path to JSON
		assumed bool              // the first of want
	}{
		{`{}`, nil, map[string]string{"recipient.address": `"1002@sip.example.com"`}, true},
		{`{}`, nil, map[string]string{"recipient.local": `true`, "recipient.devices": "1", "message.size": "5", "message.segments": "1"}, false},
		{`{"recipient": {"domain": "Elsewhere.example.com"}}`, nil, map[string]string{"recipient.local": "false", "recipient.address": `"1002@elsewhere.example.com"`, "recipient.devices": "0", "recipient.account": `""`}, false},
		{`{"recipient": {"devices": 2, "address": "3@x.example.com"}}`, nil, map[string]string{"recipient.registered": "true", "recipient.user": `"3"`, "recipient.local": "true", "recipient.account": `"3@x.example.com"`}, false},
		{`{"recipient": {"registered": false}}`, nil, map[string]string{"recipient.devices": "0", "recipient.local": "true"}, false},
		{`{"message": {"type": "application/im-iscomposing+xml"}}`, nil, map[string]string{"message.class": `"composing"`, "message.segments": "0", "message.size": "0"}, false},
		{`{"message": {"expires": 0}}`, nil, map[string]string{"message.expires": "0"}, false},
		{`{"time": "2026-07-31T23:30:00+02:00"}`, []string{"--zone", "Europe/Vienna"}, map[string]string{"time": `"2026-07-31T21:30:00Z"`, "clock.hour": "23", "clock.weekday": `"friday"`}, false},
		{`{"time": "2026-07-31T21:30:00Z", "clock": {"zone": "Europe/Vienna", "hour": 3}}`, nil, map[string]string{"clock.hour": "3", "clock.minute": "30", "clock.time": `"23:30:00"`}, false},
		{`{"sender": {"attributes": {"plan": "gold"}}}`, []string{"--set", "sender.attributes.a.b=c"}, map[string]string{"sender.attributes": `{"a.b":"c","plan":"gold"}`}, false},
		{`{"recipient": {"address": "3@x.example.com"}}`, []string{"--set", "recipient.domain=y.example.com"}, map[string]string{"recipient.address": `"3@y.example.com"`, "recipient.user": `"3"`}, false},
		{"MESSAGE sip:3@x.example.com SIP/2.0\nFrom: <sip:1@x.example.com>\nTo: <sip:3@x.example.com>\nCall-ID: 1\nCSeq: 1 MESSAGE\n\nHello", []string{"--set", "recipient.address=4@y.example.com", "--set", "message.text=Hi"},
			map[string]string{"recipient.domain": `"y.example.com"`, "recipient.user": `"4"`, "message.size": "2", "recipient.local": "false"}, false},
		{`{"message": {"text": "Hello", "size": 7}}`, nil, map[string]string{"message.size": "7", "message.segments": "1"}, false},
		{`{"transport": "vendor", "sender": {"account": "vendor"}}`, nil, map[string]string{"sender.local": "false"}, false},
		{`{"transport": "vendor"}`, nil, map[string]string{"protocol": `"smpp"`}, false},
		{`{}`, []string{"--set", "transport=smpp-server"}, map[string]string{"protocol": `"smpp"`, "sender.number": `""`, "message.missing": "0"}, false},
		{`{"message": {"missing": 1}, "sender": {"number": "+447700900001"}}`, nil, map[string]string{"message.missing": "1", "sender.number": `"+447700900001"`, "protocol": `"sip"`}, false},
		{`{"transport": "trunk"}`, []string{"--set", "protocol=smpp"}, map[string]string{"transport": `"trunk"`, "protocol": `"smpp"`}, false},
	} {
		q, assumed := evaluated(t, c.message, c.set...)
		for path, want := range c.want {
			if got := asText(lookup(q, path)); got != want {
				t.Errorf("%s %q: %s = %s, want %s", c.message, c.set, path, got, want)
			}
			if c.assumed && !strings.Contains(assumed, path) {
				t.Errorf("%s: %s isn't said to be assumed: %s", c.message, path, assumed)
			}
		}
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	for message, want := range map[string]string{
		`{`:                                    "standard input: expected a question in JSON",
		`{} {}`:                                "found something behind it",
		`{"sender": []}`:                       "sender: expected an object",
		`{"mesage": {}}`:                       "mesage: the question has no such field, expected one of",
		`{"message": {"siz": 1}}`:              "message.siz: the question has no such field, expected one of message.id, ",
		`{"message": {"size": "1"}}`:           "message.size: expected a whole number",
		`{"message": {"size": null}}`:          "message.size: expected a whole number",
		`{"message": {"class": "x"}}`:          "message.class: expected one of text, composing",
		`{"counters": {"a": "1"}}`:             "counters: expected an object whose values are whole numbers",
		`{"time": "today"}`:                    "time: expected a time",
		`{"sender": {"address": "nonsense@"}}`: "standard input: sender.address: expected user@domain",
		`{"message": {"size": -5}}`:            "standard input: message.size: expected a whole number, 0 or more",
		`{"message": {"expires": -1}}`:         "message.expires: expected a whole number, 0 or more",
		`{"counters": {"a": -1}}`:              "counters: a: expected a whole number, 0 or more",
		`{"clock": {"minute": 60}}`:            "clock.minute: expected a whole number from 0 to 59",
		`{"clock": {"zone": "Mars/Olympus"}}`:  "standard input: clock.zone: expected the name of a time zone, such as Europe/Vienna",
		`{"sender": {"address": "a"}, "recipient": {"attributes": {"a": 1}}}`: "recipient.attributes: expected an object whose values are texts",
		"INVITE sip:a@b SIP/2.0\n\n":                                          "standard input: line 1: expected a request",
		strings.Repeat(" ", 1<<20) + "{}":                                     "expected at most 1048576 octets",
	} {
		got := imgate(t, "policy eval", message, "--message", "-")
		if got.failure == nil || isUsage(got.failure) || !strings.Contains(got.failure.Error(), want) {
			t.Errorf("%.60s: %v, want %q", message, got.failure, want)
		}
	}
}

// TestMessageByName: the name tells what a file is, and where it doesn't what is
// in it.
func TestMessageByName(t *testing.T) {
	dir := wrote(t, map[string]string{"a.json": `{}`, "b.txt": ` {}`, "c.sip": `{}`})
	for name, good := range map[string]bool{"a.json": true, "b.txt": true, "c.sip": false, "none.json": false} {
		got := imgate(t, "policy eval", "", "--message", filepath.Join(dir, name))
		if (got.failure == nil) != good {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.json")); err == nil {
		t.Error("a file was made")
	}
}
