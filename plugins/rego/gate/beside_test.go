package gate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgate/imgate/plugins/rego/regotest"
)

func TestBeside(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(ctx context.Context) (int, error)
		want string // of the error; empty: 7 and none
		took time.Duration
	}{
		"it ends": {
			run: func(context.Context) (int, error) { return 7, nil },
		},
		"it fails": {
			run:  func(context.Context) (int, error) { return 0, errors.New("no") },
			want: "no",
		},
		"it ends with the context": {
			run:  func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, errors.New("the third test") },
			want: "the third test", took: compileLimit,
		},
		"it ends late": {
			run:  func(context.Context) (int, error) { time.Sleep(time.Hour); return 7, nil },
			want: "not done within 2m0s: it doesn't end", took: compileLimit + lastWords,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				got, err := Beside(t.Context(), c.run)
				if c.want == "" && (got != 7 || err != nil) {
					t.Errorf("got %v, %v", got, err)
				}
				if c.want != "" {
					regotest.Wants(t, err, c.want)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				time.Sleep(time.Hour) // until it has ended
			})
		})
	}
}

func TestBesidePanics(t *testing.T) {
	defer func() {
		if fault, _ := recover().(string); !strings.Contains(fault, "a fault") || !strings.Contains(fault, "TestBesidePanics") {
			t.Errorf("got %q, want the fault and its stack", fault)
		}
	}()
	_, _ = Beside(t.Context(), func(context.Context) (int, error) { panic("a fault") })
}
