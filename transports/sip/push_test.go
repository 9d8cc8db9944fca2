package sip

import (
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestPush(t *testing.T) {
	const caps = "Feature-Caps: *;+sip.pns=\"apns\", *;+sip.pns=\"fcm\"\r\n"
	none := plugin.Push{}
	for _, test := range []struct {
		params, status string
		push           plugin.Push
		told           bool // of the providers
	}{
		{"", "200 OK", none, false},
		{";pn-provider=apns;pn-param=ABC.org.example.voip;pn-prid=00fc1d2e", "200 OK", plugin.Push{Provider: "apns", Param: "ABC.org.example.voip", ID: "00fc1d2e"}, true},
		{";PN-Provider=FCM;PN-PRID=a%3Ab%3B1;x=y?h=z", "200 OK", plugin.Push{Provider: "fcm", ID: "a:b;1"}, true},
		{";pn-provider=fcm", "200 OK", none, true},
		{";pn-provider", "200 OK", none, true},
		{";pn-provider=webpush;pn-prid=1", "555 Push Notification Service Not Supported", none, true},
		{";pn-provider=webpush", "555 Push Notification Service Not Supported", none, true},
		{";pn-prid=1", "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-provider=apns;pn-prid=1", "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=1;pn-prid=2", "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=%0d%0aX", "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=%ff", "400 Bad Push Parameters", none, false},
		{";pn-provider=" + strings.Repeat("x", 33), "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=1;pn-param=" + strings.Repeat("x", 257), "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=" + strings.Repeat("x", 513), "400 Bad Push Parameters", none, false},
		{";pn-provider=fcm;pn-prid=" + strings.Repeat("x", 512), "200 OK", plugin.Push{Provider: "fcm", ID: strings.Repeat("x", 512)}, true},
	} {
		g := &gate{}
		d := openDoor(t, g, func(c *Config) { c.PushProviders = []string{"apns", "fcm"} })
		c := newClient(t, d)
		c.login()
		got := c.register("Contact: <sip:1001@192.0.2.9" + test.params + ">\r\n")
		want(t, got, test.status)
		if strings.Contains(got, caps) != test.told {
			t.Errorf("%q: %s", test.params, got)
		}
		if bound := g.bound(); len(bound) > 0 != (test.status == "200 OK") || len(bound) > 0 && bound[0].Push != test.push {
			t.Errorf("%q: %+v", test.params, bound)
		}
	}
}

// TestPushEnds: how an app was woken is no matter any more; and where nobody is
// woken it never is.
func TestPushEnds(t *testing.T) {
	g := &gate{}
	d := openDoor(t, g, func(c *Config) { c.PushProviders = []string{"apns"} })
	c := newClient(t, d)
	c.login()
	want(t, c.register("Contact: <sip:1001@192.0.2.9;pn-provider=fcm;pn-prid=1>;expires=0\r\n"), "200 OK")

	d = openDoor(t, g, nil)
	c = newClient(t, d)
	c.login()
	got := c.register("Contact: <sip:1001@192.0.2.9;pn-provider=fcm;pn-prid=%zz;pn-prid=2>\r\n")
	want(t, got, "400 Bad Contact") // no URI at all
	got = c.register("Contact: <sip:1001@192.0.2.9;pn-provider=fcm;pn-prid=1;pn-prid=2>\r\n")
	want(t, got, "200 OK")
	if bound := g.bound(); len(bound) != 1 || bound[0].Push != (plugin.Push{}) || strings.Contains(got, "Feature-Caps") {
		t.Errorf("%+v\n%s", bound, got)
	}
}

// FuzzPush: whatever a contact says is refused or bounded.
func FuzzPush(f *testing.F) {
	for _, seed := range []string{";pn-provider=apns;pn-param=a;pn-prid=b", ";pn-provider", ";pn-provider=apns;pn-prid=%00", ";PN-PRID=%41;pn-provider=%61pns", ";pn-prid=;;pn-provider=apns"} {
		f.Add(seed)
	}
	d := &Door{config: Config{PushProviders: []string{"apns"}}}
	f.Fuzz(func(t *testing.T, params string) {
		contact := "sip:a@h" + params
		if _, err := wire.ParseURI(contact); err != nil {
			return
		}
		p, refusal := d.pushOf(contact)
		if refusal != nil && p != (plugin.Push{}) {
			t.Errorf("%+v is refused", p)
		}
		if p.Provider != "" && p.Provider != "apns" || len(p.Param) > maxPushParam || len(p.ID) > maxPushID || !isPlainText(p.Param+p.ID) {
			t.Errorf("%+v", p)
		}
	})
}
