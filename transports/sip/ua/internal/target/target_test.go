package target

import (
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// settings are a configuration that knows where clients reach the server.
type settings struct{ address string }

func (settings) Validate() error         { return nil }
func (s settings) ClientAddress() string { return s.address }

type bare struct{}

func (bare) Validate() error { return nil }

func TestOf(t *testing.T) {
	for _, c := range []struct {
		asked    string
		settings plugin.Config
		want     string
	}{
		{"h:1", settings{"c:2"}, "h:1"},
		{"", settings{"[::1]:5070"}, "[::1]:5070"},
		{"", settings{}, fallback},
		{"", bare{}, fallback},
		{"", nil, fallback},
		{"127.0.0.1", nil, "127.0.0.1:5060"},
		{"127.0.0.1:5070", nil, "127.0.0.1:5070"},
		{"::1", nil, "[::1]:5060"},
		{"[::1]:5070", nil, "[::1]:5070"},
		{"sip.example.com", nil, "sip.example.com:5060"},
	} {
		if got := Of(c.asked, c.settings); got != c.want {
			t.Errorf("%q, %v: %s, want %s", c.asked, c.settings, got, c.want)
		}
	}
}
