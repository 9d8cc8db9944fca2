// Command notices writes NOTICE.txt: the licences of everything that is linked
// into imgate. Run it in the root of the repository.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const output = "NOTICE.txt"

func main() {
	text, err := notices(".")
	if err == nil {
		err = os.WriteFile(output, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// platforms are those that packages are made for: each links other packages.
var platforms = [...]string{"linux/amd64", "linux/arm64"}

// notices returns the text for the program of a repository.
func notices(root string) ([]byte, error) {
	folders := map[module][]string{}
	for _, platform := range platforms {
		if err := linked(root, platform, folders); err != nil {
			return nil, err
		}
	}
	var found []licence
	for m, list := range folders {
		licences, err := licencesOf(m, list)
		if err != nil {
			return nil, err
		}
		found = append(found, licences...)
	}
	return write(group(found)), nil
}

// module is a module at the version that is linked.
type module struct{ path, version, dir string }

func (m module) name() string { return strings.TrimSpace(m.path + " " + m.version) }

// linked adds the folders of the packages that are linked on a platform, by
// module, relative to it.
func linked(root, platform string, folders map[module][]string) error {
	system, arch, _ := strings.Cut(platform, "/")
	list := exec.Command("go", "list", "-deps", "-json=Dir,ImportPath,Standard,Module", "./cmd/imgate")
	list.Dir, list.Stderr = root, os.Stderr
	list.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list for %s: %w", platform, err)
	}
	goroot, err := goRoot(root)
	if err != nil {
		return err
	}
	packages := json.NewDecoder(bytes.NewReader(out))
	for {
		var p struct {
			Dir, ImportPath string
			Standard        bool
			Module          *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{ Path, Version string }
			}
		}
		err := packages.Decode(&p)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("go list for %s: %w", platform, err)
		case p.Standard:
			// Its version is that of whoever builds: the licence is the same.
			add(folders, module{"Go, its runtime and standard library", "", goroot}, ".")
			continue
		case p.Module == nil:
			return fmt.Errorf("%s belongs to no module", p.ImportPath)
		case p.Module.Main:
			continue
		}
		m := module{p.Module.Path, p.Module.Version, p.Module.Dir}
		if r := p.Module.Replace; r != nil {
			m.path, m.version = r.Path, r.Version
		}
		folder, err := filepath.Rel(m.dir, p.Dir)
		if err != nil {
			return err
		}
		add(folders, m, filepath.ToSlash(folder))
	}
}

func goRoot(root string) (string, error) {
	command := exec.Command("go", "env", "GOROOT")
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func add(folders map[module][]string, m module, folder string) {
	if !slices.Contains(folders[m], folder) {
		folders[m] = append(folders[m], folder)
	}
}

// licence is a text that comes with a module, or with a folder of it.
type licence struct {
	of   string // the module, and the folder if that has one of its own
	kind string // "MIT"; empty: a text that goes with a licence
	text string
}

// licencesOf reads the texts in a module's root and in each folder between it
// and a package that is linked.
func licencesOf(m module, folders []string) ([]licence, error) {
	var found []licence
	seen := map[string]bool{}
	for _, folder := range folders {
		for ; !seen[folder]; folder = path.Dir(folder) {
			seen[folder] = true
			texts, err := readLicences(m, folder)
			if err != nil {
				return nil, err
			}
			found = append(found, texts...)
		}
	}
	if !slices.ContainsFunc(found, func(l licence) bool { return l.of == m.name() && l.kind != "" }) {
		return nil, fmt.Errorf("%s has no licence in its root", m.name())
	}
	return found, nil
}

func readLicences(m module, folder string) ([]licence, error) {
	directory := filepath.Join(m.dir, filepath.FromSlash(folder))
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	of := m.name()
	if folder != "." {
		of += ", " + folder
	}
	var found []licence
	for _, entry := range entries {
		if entry.IsDir() || !isLicence(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err != nil {
			return nil, err
		}
		kind := classify(string(text))
		if kind == "" && !isSupplement(entry.Name()) {
			return nil, fmt.Errorf("%s: %s is no licence that is known: read it, and if it may be linked, add it to kinds", of, entry.Name())
		}
		found = append(found, licence{of, kind, tidy(string(text))})
	}
	return found, nil
}

func isLicence(name string) bool {
	upper := strings.ToUpper(strings.TrimSuffix(name, filepath.Ext(name)))
	switch filepath.Ext(name) {
	case ".go", ".json", ".yaml", ".yml":
		return false
	}
	for _, begin := range []string{"LICENSE", "LICENCE", "COPYING", "UNLICENSE"} {
		if strings.HasPrefix(upper, begin) {
			return true
		}
	}
	return isSupplement(name)
}

// isSupplement: a text that goes with a licence and isn't one.
func isSupplement(name string) bool {
	upper := strings.ToUpper(name)
	return strings.HasPrefix(upper, "NOTICE") || strings.HasPrefix(upper, "PATENTS")
}

// kinds are the licences that may be linked, with words that each of them has
// and none before it in this list.
var kinds = [...]struct {
	name  string
	words []string
}{
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004"}},
	{"MPL-2.0", []string{"Mozilla Public License Version 2.0"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms", "Redistributions in binary form must reproduce"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy"}},
	{"ISC", []string{"Permission to use, copy, modify, and/or distribute this software for any purpose"}},
	{"ISC", []string{"Permission to use, copy, modify, and distribute this software for any purpose"}},
	{"Unlicense", []string{"This is free and unencumbered software released into the public domain"}},
	{"CC0-1.0", []string{"CC0 1.0 Universal"}},
}

// classify returns the names of the licences in a text, or nothing. A text
// that names one of those that forbid linking is never known.
func classify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, forbidden := range []string{"GNU AFFERO GENERAL PUBLIC LICENSE Version", "GNU GENERAL PUBLIC LICENSE Version", "Business Source License", "Server Side Public License"} {
		if strings.Contains(text, forbidden) {
			return ""
		}
	}
	var names []string
	for _, kind := range kinds {
		all := true
		for _, words := range kind.words {
			all = all && strings.Contains(text, words)
		}
		if all && !(kind.name == "BSD-2-Clause" && slices.Contains(names, "BSD-3-Clause")) {
			names = append(names, kind.name)
		}
	}
	return strings.Join(names, " and ")
}

// tidy takes away what differs between copies of the same text.
func tidy(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t\f")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// shared is a text with all that it comes with.
type shared struct {
	licence
	all []string
}

// group joins what has the same text, in the order of the first names.
func group(found []licence) []shared {
	texts := map[string]*shared{}
	for _, l := range found {
		if texts[l.text] == nil {
			texts[l.text] = &shared{licence: l}
		}
		texts[l.text].all = append(texts[l.text].all, l.of)
	}
	var groups []shared
	for _, s := range texts {
		slices.Sort(s.all)
		s.all = slices.Compact(s.all)
		groups = append(groups, *s)
	}
	slices.SortFunc(groups, func(a, b shared) int {
		return cmp.Or(strings.Compare(a.all[0], b.all[0]), strings.Compare(a.text, b.text))
	})
	return groups
}

func write(groups []shared) []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `IMGate
Copyright the IMGate authors

IMGate is under the Apache License, version 2.0. Its program contains what
follows, each under the licence that stands below it. This file is written by
make notices.
`)
	for _, s := range groups {
		fmt.Fprintf(&b, "\n%s\n", strings.Repeat("=", 79))
		for _, of := range s.all {
			fmt.Fprintln(&b, of)
		}
		if s.kind != "" {
			fmt.Fprintf(&b, "(%s)\n", s.kind)
		}
		fmt.Fprintf(&b, "%s\n\n%s\n", strings.Repeat("-", 79), s.text)
	}
	return b.Bytes()
}
