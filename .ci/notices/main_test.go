package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNoticeIsUpToDate(t *testing.T) {
	root := filepath.Join("..", "..")
	want, err := notices(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, output))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s isn't what is linked now (%v): run make notices, and look at what changed", output, err)
	}
}

func TestClassify(t *testing.T) {
	const bsd = "Redistribution and use in source and binary forms, with or without modification, are\npermitted. Redistributions in binary form must reproduce the above copyright notice."
	for _, c := range []struct{ text, want string }{
		{"Apache License\n   Version 2.0, January 2004", "Apache-2.0"},
		{bsd, "BSD-2-Clause"},
		{bsd + " Neither the name may be used to endorse or promote products", "BSD-3-Clause"},
		{"Permission is hereby granted, free of charge, to any person\n  obtaining a copy", "MIT"},
		{"Permission is hereby granted, free of charge, to any person obtaining a copy. Mozilla Public License Version 2.0", "MPL-2.0 and MIT"},
		{"All rights reserved.", ""},
		{"GNU GENERAL PUBLIC LICENSE\n Version 3", ""},
		{"Apache License Version 2.0, January 2004, or GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3", ""},
	} {
		if got := classify(c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

const mit = "Permission is hereby granted, free of charge, to any person obtaining a copy"

func TestLicencesOfAModule(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // the licences, or words of the error
	}{
		{"one", map[string]string{"LICENSE": mit, "README": "x"}, "m v1 MIT"},
		{"one of a folder", map[string]string{"LICENSE": mit, "a/b/COPYING.md": mit, "c/LICENSE": "not linked"}, "m v1, a/b MIT; m v1 MIT"},
		{"a notice", map[string]string{"License.txt": mit, "NOTICE": "thanks"}, "m v1 MIT; m v1 "},
		{"none", map[string]string{"README": "x"}, "no licence in its root"},
		{"only a notice", map[string]string{"NOTICE": "thanks"}, "no licence in its root"},
		{"unknown", map[string]string{"LICENSE": mit, "a/LICENSE": "all rights reserved"}, "m v1, a: LICENSE is no licence that is known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := module{"m", "v1", t.TempDir()}
			for name, text := range c.files {
				file := filepath.Join(m.dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			folders := []string{"a/b"}
			if os.MkdirAll(filepath.Join(m.dir, "a/b"), 0o700) != nil {
				t.Fatal("no folder")
			}
			found, err := licencesOf(m, folders)
			var got []string
			for _, l := range found {
				got = append(got, l.of+" "+l.kind)
			}
			text := strings.Join(got, "; ")
			if err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, c.want) || err == nil && text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}

func TestSameTextsAreJoined(t *testing.T) {
	groups := group([]licence{{"b v1", "MIT", tidy("x \r\ny\n\n")}, {"c v1", "MIT", "z"}, {"a v2", "MIT", "x\ny"}, {"a v2", "MIT", "x\ny"}})
	if len(groups) != 2 || strings.Join(groups[0].all, ",") != "a v2,b v1" || groups[1].all[0] != "c v1" {
		t.Errorf("%+v", groups)
	}
}
