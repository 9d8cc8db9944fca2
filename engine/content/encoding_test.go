package content

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// compressed puts an encoding on a body; "raw" is deflate without zlib's frame.
func compressed(t testing.TB, encoding string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	switch encoding {
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw":
		w, _ = flate.NewWriter(&b, flate.DefaultCompression)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	text := []byte(strings.Repeat("hello ", 10))
	bomb := make([]byte, 1<<20)
	zipped := compressed(t, "gzip", text)
	for name, test := range map[string]struct {
		encoding string
		body     []byte
		want     error
	}{
		"none":                  {"", text, nil},
		"identity":              {"Identity", text, nil},
		"gzip":                  {"gzip", zipped, nil},
		"x-gzip":                {"X-GZIP", zipped, nil},
		"deflate":               {" deflate ", compressed(t, "deflate", text), nil},
		"deflate, bare":         {"deflate", compressed(t, "raw", text), nil},
		"two":                   {"deflate, gzip", compressed(t, "gzip", compressed(t, "deflate", text)), nil},
		"two, the wrong way":    {"gzip, deflate", compressed(t, "gzip", compressed(t, "deflate", text)), ErrCorrupt},
		"three":                 {"gzip,gzip,gzip", compressed(t, "gzip", compressed(t, "gzip", zipped)), nil},
		"an empty one":          {"gzip,", zipped, nil},
		"four":                  {"gzip,gzip,gzip,gzip", zipped, ErrEncoding},
		"compress":              {"compress", text, ErrEncoding},
		"br":                    {"br", text, ErrEncoding},
		"too large":             {"", make([]byte, 1001), ErrTooLarge},
		"a bomb":                {"gzip", compressed(t, "gzip", bomb), ErrTooLarge},
		"a deflated one":        {"deflate", compressed(t, "deflate", bomb), ErrTooLarge},
		"one inside":            {"deflate, gzip", compressed(t, "gzip", compressed(t, "raw", bomb)), ErrTooLarge},
		"not gzip":              {"gzip", text, ErrCorrupt},
		"not deflate":           {"deflate", []byte("hello"), ErrCorrupt},
		"cut":                   {"gzip", zipped[:len(zipped)-4], ErrCorrupt},
		"cut, deflate":          {"deflate", compressed(t, "deflate", text)[:8], ErrCorrupt},
		"with a wrong checksum": {"deflate", append(compressed(t, "deflate", text)[:len(compressed(t, "deflate", text))-1], 0), ErrCorrupt},
		"nothing":               {"gzip", nil, ErrCorrupt},
	} {
		got, err := Decode(test.encoding, test.body, 1000)
		if !errors.Is(err, test.want) || err == nil && !bytes.Equal(got, text) || err != nil && got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestBombsStaySmall: what would be large is never made.
func TestBombsStaySmall(t *testing.T) {
	for _, encoding := range []string{"gzip", "deflate"} {
		bomb := compressed(t, encoding, make([]byte, 8<<20))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Decode(encoding, bomb, 1000); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", encoding, err)
		}
		runtime.ReadMemStats(&after)
		if made := after.TotalAlloc - before.TotalAlloc; made > 1<<20 {
			t.Errorf("%s: %d KiB were made of %d KiB", encoding, made>>10, len(bomb)>>10)
		}
	}
}

// FuzzDecode: nothing panics, nothing gets larger than it may, and what was
// encoded comes out again.
func FuzzDecode(f *testing.F) {
	f.Add("gzip", compressed(f, "gzip", []byte("hello")))
	f.Add("deflate", compressed(f, "deflate", []byte("hello")))
	f.Add("deflate", compressed(f, "raw", []byte("hello")))
	f.Add("identity, gzip", []byte("x"))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		const max = 4096
		if got, err := Decode(encoding, body, max); len(got) > max || err != nil && got != nil {
			t.Errorf("%d octets, %v", len(got), err)
		}
		for name, label := range map[string]string{"gzip": "gzip", "deflate": "deflate", "raw": "deflate"} {
			got, err := Decode(label, compressed(t, name, body), len(body))
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})
}
