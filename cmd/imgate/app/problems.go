package app

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// problem is one thing that is wrong with the configuration.
type problem struct {
	file     string
	line     int    // 0: nowhere in the file
	variable string // the environment variable that brought the value; empty: the file did
	path     string // of the key: transports.sip.listen; empty: the file as a whole
	text     string
}

// String returns "imgate.yaml:12: transports.sip.listn: unknown key; …".
func (p problem) String() string {
	place := p.file
	switch {
	case p.variable != "":
		place = p.variable
	case p.line > 0:
		place = fmt.Sprintf("%s:%d", p.file, p.line)
	}
	if p.path == "" {
		return place + ": " + p.text
	}
	return place + ": " + p.path + ": " + p.text
}

// configError is everything that is wrong with the configuration, in the
// order of the file, a line for each.
type configError struct{ problems []problem }

func (e *configError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problems gathers them while the configuration is read.
type problems struct {
	file string
	list []problem
}

func (ps *problems) note(line int, path, format string, args ...any) {
	ps.list = append(ps.list, problem{file: ps.file, line: line, path: path, text: fmt.Sprintf(format, args...)})
}

func (ps *problems) noteVariable(variable, path, format string, args ...any) {
	ps.list = append(ps.list, problem{file: ps.file, variable: variable, path: path, text: fmt.Sprintf(format, args...)})
}

// covers tells whether something is known to be wrong with the key itself,
// with an item of its list, or with the section that it is in.
func (ps *problems) covers(path string) bool {
	return slices.ContainsFunc(ps.list, func(p problem) bool {
		return p.path == path || p.path != "" && (strings.HasPrefix(p.path, path+"[") || strings.HasPrefix(path, p.path+"."))
	})
}

// err returns nil if nothing is wrong.
func (ps *problems) err() error {
	if len(ps.list) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.list, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.variable, b.variable), cmp.Compare(a.line, b.line))
	})
	return &configError{ps.list}
}

// expectedOneOf lists what would have been right for word, and the nearest of
// it first if that may have been meant.
func expectedOneOf(word string, known []string) string {
	if len(known) == 0 {
		return "this build has none"
	}
	list := "expected one of " + strings.Join(known, ", ")
	if near, ok := nearest(word, known); ok {
		return fmt.Sprintf("did you mean %s? %s", near, list)
	}
	return list
}

// nearest returns the word that differs least, if it doesn't differ in more
// than a third of its letters.
func nearest(word string, known []string) (string, bool) {
	best, least := "", len(word)
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(k)); d < least && 3*d <= max(len(k), 3) {
			best, least = k, d
		}
	}
	return best, best != ""
}
