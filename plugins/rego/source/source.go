// Package source is where policies come from: it reads a directory, or a bundle
// whose signature it checks, packs what it read so that another node can read
// it, and notices changes. It must not know what policies mean: they are text,
// and data files are data and rows.
package source

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/imgate/imgate/plugins/rego/match"
)

// Limits of what policies are made of.
const (
	maxFiles     = 2_000
	MaxFileSize  = 16 << 20 // octets
	maxTotalSize = 60 << 20 // octets, all files together: it fits into a plugin.Bundle even if it can't be compressed
	maxDepth     = 16       // directories below each other
)

// The names in data files that are ours.
const (
	Reserved    = "imgate"  // a part of the data document, and of the package names
	DomainsName = "domains" // the rows that map domains to services
)

// File is a file of the operator's.
type File struct {
	Path string // as in messages
	Text []byte
}

// Source is what a directory or a bundle holds, read but not yet understood:
// the policies and their tests are text.
type Source struct {
	Policies []File
	Tests    []File
	Data     map[string]any    // all data files, laid over each other
	Homes    map[string]string // the file that a name at the top of data comes from
	Rows     []match.Row       // of all data files
	Revision string
}

// New sorts what was read. The files have paths within the room, in their
// order; messages show the room before them.
func New(room string, files []File) (Source, []error) {
	s := Source{Data: map[string]any{}, Revision: revision(files)}
	var errs []error
	var documents []document
	for _, f := range files {
		named := File{Path: path.Join(room, f.Path), Text: f.Text}
		switch {
		case !utf8.Valid(f.Text):
			errs = append(errs, fmt.Errorf("%s: expected text in UTF-8", named.Path))
		case IsTest(f.Path):
			s.Tests = append(s.Tests, named)
		case IsPolicy(f.Path):
			s.Policies = append(s.Policies, named)
		default:
			d, dataErrs := readDocument(named, below(f.Path))
			documents = append(documents, d)
			errs = append(errs, dataErrs...)
			s.Rows = append(s.Rows, d.rows...)
		}
	}
	if len(s.Policies) == 0 {
		errs = append(errs, fmt.Errorf("%s: expected policies in files *.rego, found none", room))
	}
	var conflicts []error
	s.Data, s.Homes, conflicts = overlay(documents)
	return s, append(errs, conflicts...)
}

// IsPolicy tells whether a file is Rego, a test or not, by its name.
func IsPolicy(name string) bool { return path.Ext(name) == ".rego" }

// IsTest tells whether it is a test.
func IsTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

func isData(name string) bool {
	switch path.Ext(name) {
	case ".json", ".yaml", ".yml":
		return true
	}
	return false
}

// notOurs are files of other tools, which are often kept beside policies.
func notOurs(name string) bool {
	return strings.HasSuffix(name, ".schema.json") || name == "capabilities.json"
}

// Wanted tells whether a file is read. Hidden ones are not: editors, Kubernetes
// and tools keep theirs there (.regal, .manifest, ..data).
func Wanted(name string) bool {
	base := path.Base(name)
	return !strings.HasPrefix(base, ".") && (IsPolicy(base) || isData(base)) && !notOurs(base)
}

// below returns the names of the directories that a file is in: its data is
// below the document of these names.
func below(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return strings.Split(dir, "/")
}

// revision is a short digest of the names and contents of all files, tests too:
// two nodes with the same revision decide the same and have tried the same.
func revision(files []File) string {
	digest := sha256.New()
	for _, f := range files {
		fmt.Fprintf(digest, "%s\x00%d\x00", f.Path, len(f.Text))
		digest.Write(f.Text)
	}
	return hex.EncodeToString(digest.Sum(nil)[:6])
}

// document is what a data file adds to the data document.
type document struct {
	path  string // of the file
	below []string
	value map[string]any
	rows  []match.Row
}

// overlay makes one document of all. Objects of the same name become one, as
// OPA does it; anything else may be there once. homes are the files that the
// names at its top come from, the first of each.
func overlay(documents []document) (data map[string]any, homes map[string]string, errs []error) {
	data, homes = map[string]any{}, map[string]string{}
	for i, d := range documents {
		value := d.whole()
		if err := reservedName(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.path, err))
			continue
		}
		if conflict := lay(value, data, nil); conflict != nil {
			errs = append(errs, fmt.Errorf("%s: %s holds data.%s too: expected it once",
				d.path, holder(documents[:i], conflict), strings.Join(conflict, ".")))
		}
		for name := range value {
			homes[name] = cmp.Or(homes[name], d.path)
		}
	}
	return data, homes, errs
}

// whole is what a document adds to data, from the top on.
func (d document) whole() map[string]any {
	value := d.value
	for _, name := range slices.Backward(d.below) {
		value = map[string]any{name: value}
	}
	return value
}

func reservedName(value map[string]any) error {
	for _, name := range []string{Reserved, DomainsName} {
		if _, there := value[name]; there {
			return fmt.Errorf("the name %q is kept for the gateway: expected another one", name)
		}
	}
	return nil
}

// lay adds from to onto, and returns the path of what both have.
func lay(from, onto map[string]any, path []string) []string {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		there, taken := onto[name]
		if !taken {
			onto[name] = from[name]
			continue
		}
		a, isObject := from[name].(map[string]any)
		b, both := there.(map[string]any)
		if !isObject || !both {
			return append(path, name)
		}
		b = maps.Clone(b) // it belongs to its file
		onto[name] = b
		if conflict := lay(a, b, append(path, name)); conflict != nil {
			return conflict
		}
	}
	return nil
}

// holder returns the file that holds what is at a path.
func holder(documents []document, path []string) string {
	for _, d := range documents {
		if holds(d.whole(), path) {
			return d.path
		}
	}
	return "another file"
}

func holds(value any, path []string) bool {
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return true
		}
		if value, ok = object[name]; !ok {
			return false
		}
	}
	return true
}

var errTooMuch = errors.New("expected at most " + limitsText())

func limitsText() string {
	return fmt.Sprintf("%d files, each of %d MiB and together of %d MiB", maxFiles, MaxFileSize>>20, maxTotalSize>>20)
}
