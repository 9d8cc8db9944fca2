package rego

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of a directory of policies.
const (
	maxFiles     = 2_000
	maxFileSize  = 32 << 20  // octets
	maxTotalSize = 128 << 20 // octets, all files together
)

// reserved is the part of the data document and of the package names that is
// ours.
const reserved = "imgate"

// file is a file of the operator's.
type file struct {
	path string // as in messages
	text []byte
}

// source is what a directory of policies holds. Tests are not part of it.
type source struct {
	policies []file
	data     map[string]any // all data files, laid side by side
	revision string
}

// readSource reads *.rego, *.json, *.yaml and *.yml of a directory and not of
// those below it. room is the directory's name in messages.
func readSource(fsys fs.FS, room string) (source, []error) {
	files, err := readFiles(fsys, room)
	if err != nil {
		return source{}, []error{fmt.Errorf("%s: %w", room, err)}
	}
	s := source{data: map[string]any{}, revision: revision(files)}
	var errs []error
	for _, f := range files {
		if isPolicy(f.path) {
			s.policies = append(s.policies, f)
			continue
		}
		errs = append(errs, s.addData(f)...)
	}
	if len(s.policies) == 0 {
		errs = append(errs, fmt.Errorf("%s: expected policies in files *.rego, found none", room))
	}
	return s, errs
}

func isPolicy(name string) bool { return path.Ext(name) == ".rego" }

func isData(name string) bool {
	switch path.Ext(name) {
	case ".json", ".yaml", ".yml":
		return true
	}
	return false
}

// wanted leaves out tests, and hidden files: editors and Kubernetes keep theirs there.
func wanted(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "_test.rego") {
		return false
	}
	return isPolicy(name) || isData(name)
}

// readFiles returns the files in the order of their names.
func readFiles(fsys fs.FS, room string) ([]file, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, cause(err)
	}
	var files []file
	total := 0
	for _, entry := range entries {
		if !wanted(entry.Name()) {
			continue
		}
		text, err := readFile(fsys, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), cause(err))
		}
		if text == nil {
			continue
		}
		files = append(files, file{path: path.Join(room, entry.Name()), text: text})
		if total += len(text); total > maxTotalSize || len(files) > maxFiles {
			return nil, fmt.Errorf("expected at most %d files of together %d octets", maxFiles, maxTotalSize)
		}
	}
	return files, nil
}

// readFile returns nil for what is not a file.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = fmt.Errorf("expected at most %d octets", maxFileSize)
	}
	return text, err
}

// cause leaves out the path that a file system puts before an error: it says
// "." where we say more.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// revision is a short digest of the names and contents of all files: two nodes
// with the same revision decide the same.
func revision(files []file) string {
	digest := sha256.New()
	for _, f := range files {
		fmt.Fprintf(digest, "%s\x00%d\x00", path.Base(f.path), len(f.text))
		digest.Write(f.text)
	}
	return hex.EncodeToString(digest.Sum(nil)[:6])
}

// addData lays a file's object beside those of the others.
func (s *source) addData(f file) []error {
	document, err := parseData(f)
	if err != nil {
		return []error{err}
	}
	var errs []error
	for name, value := range document {
		switch _, taken := s.data[name]; {
		case name == reserved:
			errs = append(errs, fmt.Errorf("%s: the name %q is kept for policies: expected another one", f.path, name))
		case taken:
			errs = append(errs, fmt.Errorf("%s: another data file has the name %q too: expected it once", f.path, name))
		default:
			s.data[name] = value
		}
	}
	return errs
}

func parseData(f file) (map[string]any, error) {
	if path.Ext(f.path) == ".json" {
		return parseJSON(f)
	}
	return parseYAML(f)
}

func parseJSON(f file) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(f.text))
	decoder.UseNumber()
	var document map[string]any
	err := decoder.Decode(&document)
	if err != nil {
		line := 1 + bytes.Count(f.text[:jsonOffset(err, decoder)], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: expected an object in JSON: %w", f.path, line, err)
	}
	if rest := bytes.TrimSpace(f.text[decoder.InputOffset():]); len(rest) > 0 {
		line := 1 + bytes.Count(f.text[:len(f.text)-len(rest)], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: expected one object in JSON, found something behind it", f.path, line)
	}
	return document, nil
}

// jsonOffset returns where the decoder noticed the error.
func jsonOffset(err error, decoder *json.Decoder) int64 {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return max(syntax.Offset-1, 0)
	}
	return decoder.InputOffset()
}

// parseYAML reads an object; yaml.v3 refuses a name that is there twice.
func parseYAML(f file) (map[string]any, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(f.text, &node); err != nil {
		return nil, fmt.Errorf("%s: expected an object in YAML: %w", f.path, err)
	}
	if err := plainScalars(&node); err != nil {
		return nil, fmt.Errorf("%s:%w", f.path, err)
	}
	var document map[string]any
	if err := node.Decode(&document); err != nil {
		return nil, fmt.Errorf("%s: expected an object in YAML: %w", f.path, err)
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("%s: expected what JSON can hold: %w", f.path, err)
	}
	return parseJSON(file{path: f.path, text: text})
}

// plainScalars makes a name of every key (44: is "44") and text of every date:
// Rego knows JSON's types only. A key that is no scalar is refused here, with
// its line: yaml.v3 panics when it merges into such a mapping.
func plainScalars(n *yaml.Node) error {
	for i, child := range n.Content {
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		if isKey && child.Kind != yaml.ScalarNode {
			return fmt.Errorf("%d: expected a plain word as a key, found a list, a mapping or an alias", child.Line)
		}
		if child.Kind == yaml.ScalarNode && (isKey && child.Tag != "!!merge" || child.Tag == "!!timestamp") {
			child.Tag = "!!str"
		}
		if err := plainScalars(child); err != nil {
			return err
		}
	}
	return nil
}
