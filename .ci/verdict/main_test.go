package main

import (
	"strings"
	"testing"
)

const input = `go: downloading something
{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"    good_test.go:1: chatter\n"}
{"Action":"pass","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestOff","Output":"=== RUN   TestOff\n"}
{"Action":"output","Package":"a","Test":"TestOff","Output":"    off_test.go:7: no database\n"}
{"Action":"output","Package":"a","Test":"TestOff","Output":"--- SKIP: TestOff (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestOff"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t1.0s\n"}
{"Action":"pass","Package":"a"}
`

const failing = `{"Action":"build-output","ImportPath":"b","Output":"b.go:1: undefined\n"}
{"Action":"output","Package":"c","Test":"TestBad","Output":"    bad_test.go:1: wrong\n"}
{"Action":"fail","Package":"c","Test":"TestBad"}
{"Action":"output","Package":"c","Test":"TestHangs","Output":"panic: too long\n"}
{"Action":"output","Package":"c","Output":"FAIL\tc\t1.0s\n"}
{"Action":"fail","Package":"c"}
`

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		failed         bool
	}{
		{"all well", input, "go: downloading something\nok  \ta\t1.0s\n1 tests skipped\nSKIP a TestOff: off_test.go:7: no database\n", false},
		{"not well", failing, "b.go:1: undefined\n    bad_test.go:1: wrong\npanic: too long\nFAIL\tc\t1.0s\n0 tests skipped\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			v := &verdict{out: &out, said: map[who]*strings.Builder{}}
			err := v.read(strings.NewReader(c.in))
			if err != nil || v.failed != c.failed || out.String() != c.want {
				t.Errorf("failed %v, %v:\n%s", v.failed, err, out.String())
			}
		})
	}
}
