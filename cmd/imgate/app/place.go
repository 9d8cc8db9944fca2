package app

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// place says where a key stands, for errors of whoever works with its value:
// "imgate.yaml:12", or the environment variable that it comes from.
func (l *loader) place(path string) string {
	whole, _, _ := strings.Cut(path, "[") // of a list, if this is an item
	if variable := variableOf(whole); l.variables[variable] == whole {
		return variable
	}
	if line := lineOf(l.root, 0, path); line > 0 && l.file != builtInName {
		return fmt.Sprintf("%s:%d", l.file, line)
	}
	return l.file
}

// placeIn says where a key stands, within a sentence.
func (l *loader) placeIn(path string) string {
	if at := l.place(path); at != l.file {
		return fmt.Sprintf("%s (%s)", path, at)
	}
	return path
}

// lineOf finds a key below a section, such as "limits.body" or "listen[0]";
// where the file doesn't have it, the line of what would have held it.
func lineOf(section *yaml.Node, line int, key string) int {
	if section == nil || section.Kind != yaml.MappingNode {
		return line
	}
	best := -1 // of the keys that fit, the longest: names may have dots
	for i := 0; i+1 < len(section.Content); i += 2 {
		rest, ok := strings.CutPrefix(key, section.Content[i].Value)
		fits := ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
		if fits && (best < 0 || len(section.Content[i].Value) > len(section.Content[best].Value)) {
			best = i
		}
	}
	if best < 0 {
		return line
	}
	found := section.Content[best]
	return lineOf(section.Content[best+1], found.Line, strings.TrimPrefix(key[len(found.Value):], "."))
}
