package source

import (
	"bytes"
	"compress/flate"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
)

func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}

func TestPack(t *testing.T) {
	files := []File{{Path: "a.rego", Text: []byte(regotest.AnyService)}, {Path: "a_test.rego", Text: []byte{}}, {Path: "sub/b.yaml", Text: []byte("a: 1")}}
	b, err := Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Pack(slices.Clone(files))
	if err != nil || again.Revision != b.Revision || !bytes.Equal(again.Content, b.Content) {
		t.Errorf("packed again: %v, %s for %s", err, again.Revision, b.Revision)
	}
	back, err := Unpack(b)
	if err != nil || len(back) != len(files) {
		t.Fatalf("%v, %v", back, err)
	}
	for i, f := range back {
		if f.Path != files[i].Path || !bytes.Equal(f.Text, files[i].Text) {
			t.Errorf("got %s, %q", f.Path, f.Text)
		}
	}
}

// packed makes content of what it begins with and what is compressed in it.
func packed(t testing.TB, inner string) []byte {
	var out bytes.Buffer
	out.WriteByte(packVersion)
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(inner)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpackRefuses(t *testing.T) {
	good, err := Pack([]File{{Path: "a.rego", Text: []byte("package a")}})
	if err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat("\x06a.rego\x00", maxFiles+1)
	zeros := strings.Repeat("\x00", MaxFileSize)
	large := "\x06a.rego\x80\x80\x80\x08" + zeros + "\x06b.rego\x80\x80\x80\x08" + zeros + "\x06c.rego\x80\x80\x80\x08" + zeros + "\x06d.rego\x80\x80\x80\x08" + zeros
	for name, c := range map[string]struct {
		b    plugin.Bundle
		want string
	}{
		"nothing":            {plugin.Bundle{Revision: "r"}, "bundle r: expected policies as this version"},
		"another version":    {plugin.Bundle{Revision: "r", Content: append([]byte{2}, good.Content[1:]...)}, "expected policies as"},
		"another revision":   {plugin.Bundle{Revision: "r", Content: good.Content}, "its content is that of " + good.Revision},
		"half of it":         {plugin.Bundle{Content: good.Content[:len(good.Content)/2]}, "unexpected EOF"},
		"something behind":   {plugin.Bundle{Revision: good.Revision, Content: append(slices.Clone(good.Content), 0)}, "expected policies as"},
		"half a name":        {plugin.Bundle{Content: packed(t, "\x06a.r")}, "expected policies as"},
		"no text":            {plugin.Bundle{Content: packed(t, "\x06a.rego")}, "expected policies as"},
		"a path that leads":  {plugin.Bundle{Content: packed(t, "\x09../a.rego\x00")}, "expected policies as"},
		"an absolute path":   {plugin.Bundle{Content: packed(t, "\x07/a.rego\x00")}, "expected policies as"},
		"another file":       {plugin.Bundle{Content: packed(t, "\x05a.txt\x00")}, "expected policies as"},
		"a file twice":       {plugin.Bundle{Content: packed(t, "\x06a.rego\x00\x06a.rego\x00")}, "expected policies as"},
		"out of order":       {plugin.Bundle{Content: packed(t, "\x06b.rego\x00\x06a.rego\x00")}, "expected policies as"},
		"too long a text":    {plugin.Bundle{Content: packed(t, "\x06a.rego\xff\xff\xff\xff\x0f")}, "expected at most"},
		"many, out of order": {plugin.Bundle{Content: packed(t, many)}, "expected policies as"},
		"a bomb":             {plugin.Bundle{Content: packed(t, large)}, "expected at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Unpack(c.b)
			regotest.Wants(t, err, c.want)
		})
	}
}

// FuzzUnpack unpacks anything. What it takes is what pack makes.
func FuzzUnpack(f *testing.F) {
	good, err := Pack([]File{{Path: "a.rego", Text: []byte("package a")}, {Path: "b/c.yaml", Text: []byte("a: 1")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Content[1:])
	f.Add(packed(f, "\x06a.rego\x00\x06b.rego\x01x")[1:])
	f.Fuzz(func(t *testing.T, content []byte) {
		files, err := unpackFiles(bytes.NewReader(content))
		if err != nil {
			return
		}
		b, err := Pack(files)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Unpack(b)
		if err != nil || len(again) != len(files) || len(files) > 0 && !reflect.DeepEqual(again, files) {
			t.Errorf("%v\nis unpacked again as %v, %v", files, again, err)
		}
	})
}
