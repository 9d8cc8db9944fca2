package imgate_test

import (
	"bytes"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func countLines(name string) (int, error) {
	text, err := os.ReadFile(name)
	return bytes.Count(text, []byte("\n")), err
}

// linesOfCode counts the lines on which there is more than a comment.
func linesOfCode(name string) (int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	files := token.NewFileSet()
	file := files.AddFile(name, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	lines := map[int]bool{}
	for {
		at, what, _ := s.Scan()
		if what == token.EOF {
			return len(lines), nil
		}
		lines[file.Line(at)] = true
	}
}

// TestFilesStayReadable: a file of Go is at most 500 lines long.
func TestFilesStayReadable(t *testing.T) {
	const most = 500
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") {
			return err
		}
		n, err := countLines(name)
		if n > most {
			t.Errorf("%s has %d lines, at most %d", name, n, most)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
