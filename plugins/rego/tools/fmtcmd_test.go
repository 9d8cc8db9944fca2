package tools

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	unformatted = "package imgate.services.a\nplan.mime.sip   := [ \"text/plain\" ]\n"
	wellFormed  = "package imgate.services.a\n\nplan.mime.sip := [\"text/plain\"]\n"
)

func TestFormat(t *testing.T) {
	t.Chdir(wrote(t, map[string]string{
		"a.rego": unformatted, "a_test.rego": wellFormed, "more/b.rego": unformatted, ".hidden.rego": unformatted, "a.yaml": "a:   1\n",
	}))
	if err := os.Chmod("a.rego", 0o640); err != nil {
		t.Fatal(err)
	}
	want := "a.rego\n" + filepath.Join("more", "b.rego") + "\n"
	if got := imgate(t, "policy fmt", "", "--check", "."); got.out != want || got.failure == nil || got.failure.Error() != "2 files not in the format" {
		t.Errorf("--check: %+v", got)
	}
	if got := imgate(t, "policy fmt", "", "--diff", "a.rego"); got.failure != nil || !strings.Contains(got.out, "-plan.mime.sip   := [ \"text/plain\" ]\n+\n+plan.mime.sip := [\"text/plain\"]\n") {
		t.Errorf("--diff: %+v", got)
	}
	if text := read(t, "a.rego"); text != unformatted {
		t.Errorf("--check or --diff changed a file: %q", text)
	}
	if got := imgate(t, "policy fmt", "", "--dir", "."); got.out != want || got.failure != nil {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]string{"a.rego": wellFormed, "more/b.rego": wellFormed, ".hidden.rego": unformatted, "a.yaml": "a:   1\n"} {
		if text := read(t, name); text != want {
			t.Errorf("%s: %q", name, text)
		}
	}
	if info, err := os.Stat("a.rego"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if got := imgate(t, "policy fmt", "", "."); got.out != "" || got.failure != nil {
		t.Errorf("a second time: %+v", got)
	}
	if rest, _ := filepath.Glob(".fmt-*"); rest != nil {
		t.Errorf("left behind: %q", rest)
	}
}

// TestFormatOfNothing: a directory without policies was named by mistake.
func TestFormatOfNothing(t *testing.T) {
	dir := wrote(t, map[string]string{"a.yaml": "a: 1\n"})
	if got := imgate(t, "policy fmt", "", "--check", dir); got.failure == nil || got.failure.Error() != dir+": expected policies in files *.rego, found none" {
		t.Errorf("%+v", got)
	}
}

// TestFormatKeepsLinks: what is linked to is written, and the link stays.
func TestFormatKeepsLinks(t *testing.T) {
	t.Chdir(wrote(t, map[string]string{"real.rego": unformatted}))
	if err := os.Symlink("real.rego", "link.rego"); err != nil {
		t.Fatal(err)
	}
	if got := imgate(t, "policy fmt", "", "link.rego"); got.failure != nil {
		t.Fatalf("%+v", got)
	}
	if target, err := os.Readlink("link.rego"); err != nil || target != "real.rego" || read(t, "real.rego") != wellFormed {
		t.Errorf("%s, %v: %q", target, err, read(t, "real.rego"))
	}
}

func TestFormatLeavesAloneWhatIsWrong(t *testing.T) {
	t.Chdir(wrote(t, map[string]string{"a.rego": "package a\n\np := {\n", "b.rego": unformatted}))
	got := imgate(t, "policy fmt", "", ".")
	if got.failure == nil || got.failure.Error() != "1 file left alone" || !strings.HasPrefix(got.err, "a.rego:4: ") || got.out != "b.rego\n" {
		t.Errorf("%+v", got)
	}
	if text := read(t, "a.rego"); text != "package a\n\np := {\n" {
		t.Errorf("%q", text)
	}
	if got := imgate(t, "policy fmt", "", "nowhere.rego"); got.failure == nil || isUsage(got.failure) {
		t.Errorf("%+v", got)
	}
}

func TestUnified(t *testing.T) {
	before := "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\nlast"
	after := "1\ntwo\n3\n4\n5\n6\n7\n8\n9\n10\n11\nmore\n12\n13\nlast\n"
	want := `--- a
+++ a (formatted)
@@ -1,5 +1,5 @@
 1
-2
+two
 3
 4
 5
@@ -9,6 +9,7 @@
 9
 10
 11
+more
 12
 13
-last
\ No newline at end of file
+last
`
	if got := unified("a", before, after); got != want {
		t.Errorf("%s", got)
	}
	long := strings.Repeat("x\ny\n", 3000)
	if got := unified("a", long, "z\n"+strings.ReplaceAll(long, "x", "w")); !strings.Contains(got, "@@ -1,6000 +1,6001 @@") {
		t.Errorf("%.200s", got)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
