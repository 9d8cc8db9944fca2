package plugin

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"testing"
	"time"
)

func TestChoice(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
		fail bool
	}{
		{nil, "table", false},
		{[]string{"--output", "json"}, "json", false},
		{[]string{"--output", "xml"}, "table", true},
		{[]string{"--output", ""}, "table", true},
	} {
		flags := flag.NewFlagSet("x", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		output := NewChoice(flags, "output", "print as", "table", "json")
		err := flags.Parse(c.args)
		if output.Value != c.want || (err != nil) != c.fail {
			t.Errorf("%q: chose %q, %v", c.args, output.Value, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	one, two, three := errors.New("one"), errors.New("two"), fmt.Errorf("three: %w", io.EOF)
	got := Mistakes(errors.Join(one, errors.Join(two, three)))
	if len(got) != 3 || got[0] != one || got[1] != two || got[2] != three {
		t.Errorf("got %q", got)
	}
	if got := Mistakes(nil); got != nil {
		t.Errorf("no error has the mistakes %q", got)
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Hour: "1h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s",
		20 * time.Hour: "20h", 10 * time.Minute: "10m", time.Hour + time.Second: "1h0m1s", 720 * time.Hour: "720h",
	} {
		if got := DurationText(d); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}
