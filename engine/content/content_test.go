package content

import (
	"testing"

	"github.com/imgate/imgate/engine/message"
)

func TestMediaType(t *testing.T) {
	for in, want := range map[string]string{
		"text/plain":                     "text/plain",
		"Text/PLAIN; charset=utf-8":      "text/plain",
		" message/cpim ;x=\"a;b\"":       "message/cpim",
		"application/im-iscomposing+xml": TypeComposing,
		"":                               "",
	} {
		if got := MediaType(in); got != want {
			t.Errorf("MediaType(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestClassOf(t *testing.T) {
	if ClassOf(TypeComposing) != message.Composing {
		t.Error("a typing notice isn't recognised")
	}
	if ClassOf(TypeIMDN) != message.Notification {
		t.Error("an IMDN isn't recognised")
	}
	if ClassOf("text/plain") != message.Text {
		t.Error("text isn't recognised")
	}
}
