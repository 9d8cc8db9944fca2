//go:build process

package main_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// policyParts is how many files of a set must agree with each other.
const policyParts = 5

// policyDir is a directory of policies behind a symbolic link. Each set of files
// has a number, which all of its parts have, or else its test fails: half a set
// is never a good one, however long it is there.
type policyDir struct {
	t    *testing.T
	link string
	sets string            // the directories that the link may lead to
	now  map[string]string // the files that are there
	n    int               // of the latest set
	last string            // the number of the latest good one
	dirs int
}

func newPolicyDir(t *testing.T) *policyDir {
	t.Helper()
	root := t.TempDir()
	d := &policyDir{t: t, link: filepath.Join(root, "policies"), sets: filepath.Join(root, "sets")}
	d.good(bySymlink)
	return d
}

// mistake is what is wrong with a set, and what is said of it.
type mistake struct {
	name, says string
	file       string
	make       func(text string) string
}

var (
	badRule = mistake{"no such store time", "plan.store", "service.rego", func(text string) string {
		return text + "\nplan.store := \"forever\"\n"
	}}
	badSyntax = mistake{"a brace is missing", "unexpected eof", "service.rego", func(text string) string {
		return text + "\nplan.answer := \"accepted\" if {\n"
	}}
	badInput = mistake{"a misspelt input", "input.sendr", "service.rego", func(text string) string {
		return text + "\nplan.answer := \"accepted\" if input.sendr.user == \"x\"\n"
	}}
	badTest = mistake{"a part of another set", "test_parts_agree", "part3.rego", func(string) string {
		return part(3, "another")
	}}
)

// mistakes are made one after the other.
var mistakes = []mistake{badRule, badSyntax, badInput, badTest}

// good puts a good set there.
func (d *policyDir) good(how way) {
	d.t.Helper()
	d.put(d.next(), how)
	d.last = strconv.Itoa(d.n)
}

func (d *policyDir) next() map[string]string {
	d.n++
	return policySet(strconv.Itoa(d.n))
}

// bad puts a set there that has a mistake.
func (d *policyDir) bad(m mistake, how way) {
	d.t.Helper()
	files := d.next()
	files[m.file] = m.make(files[m.file])
	d.put(files, how)
}

func (d *policyDir) put(files map[string]string, how way) {
	d.t.Helper()
	if err := how(d, files); err != nil {
		d.t.Fatal(err)
	}
	d.now = files
}

// policySet is a good set of files.
func policySet(number string) map[string]string {
	files := map[string]string{
		"service.rego": `package imgate.services.changing

match := {"domains": ["*"]}

plan.transports := ["sip"]

plan.charging.mode := "event"

plan.store := data.set.store

plan.labels.set := data.set.number

# All parts have one number.
plan.labels.parts := concat(" ", {part.number | some part in data.parts})
`,
		"agree_test.rego": `package imgate.services.changing_test

import data.imgate.services.changing

test_parts_agree if changing.plan.labels.parts == data.set.number
`,
		"set.yaml": fmt.Sprintf("set:\n  store: 1h\n  number: %q\n", number),
	}
	for i := range policyParts {
		files[fmt.Sprintf("part%d.rego", i)] = part(i, number)
	}
	return files
}

func part(i int, number string) string {
	return fmt.Sprintf("package parts.part%d\n\nnumber := %q\n", i, number)
}

// way is how files get into the directory.
type way func(d *policyDir, files map[string]string) error

// bySymlink makes a new directory and lets the link lead to it, as Kubernetes
// does and deployments that keep the old one.
func bySymlink(d *policyDir, files map[string]string) error {
	d.dirs++
	dir := filepath.Join(d.sets, strconv.Itoa(d.dirs))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	fresh := d.link + ".new"
	if err := os.Symlink(dir, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, d.link)
}

// byRename writes each file beside the old one and renames it over that, as
// editors and rsync do.
func byRename(d *policyDir, files map[string]string) error {
	return d.each(files, func(name, text string) error {
		fresh := filepath.Join(d.link, "."+name+".new")
		if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(fresh, filepath.Join(d.link, name))
	})
}

// inPlace truncates each file and writes it in two pieces, as other editors do
// and cp.
func inPlace(d *policyDir, files map[string]string) error {
	return d.each(files, func(name, text string) error {
		file, err := os.Create(filepath.Join(d.link, name))
		if err != nil {
			return err
		}
		defer file.Close()
		first := strings.LastIndex(text, "\"") // within a text: half of it is no policy
		for _, piece := range []string{text[:first], text[first:]} {
			if _, err := file.WriteString(piece); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
		return nil
	})
}

// manyFiles takes all files away and brings others, as whoever unpacks an archive.
// The test goes last and comes first.
func manyFiles(d *policyDir, files map[string]string) error {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(d.now))) {
		if err := os.Remove(filepath.Join(d.link, name)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(d.link, name), []byte(files[name]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// each changes those files that are to change, in the order of their names.
func (d *policyDir) each(files map[string]string, change func(name, text string) error) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if files[name] == d.now[name] {
			continue
		}
		if err := change(name, files[name]); err != nil {
			return err
		}
	}
	return nil
}
