package app

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// variableRoot begins the environment variables that are ours.
const variableRoot = "IMGATE"

// maxMisspelt is in how many letters a variable may differ from the one that
// was meant.
const maxMisspelt = 2

// sections are the keys whose variables have more words behind them.
var sections = [...]string{
	"admin", "limits", "storage", "policy", "accounts", "charging", "push", observersKey, transportsKey,
}

// environment returns the value of the variable of a key. An empty one counts
// as not set. Variables that no key has are ignored: others (Kubernetes, for
// each service named imgate) set such.
func (l *loader) environment(path string) (string, bool) {
	name := variableOf(path)
	l.asked = append(l.asked, name)
	text := os.Getenv(name)
	if text == "" {
		return "", false
	}
	if other, taken := l.variables[name]; taken && other != path {
		l.noteVariable(name, path, "stands for this key and for %s; rename one of the instances", other)
	}
	l.variables[name] = path
	return text, true
}

// variableOf returns IMGATE_ADMIN_LISTEN for admin.listen.
func variableOf(path string) string {
	return variableRoot + "_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(path))
}

// unknownVariables warns of variables of the environment that look like ours,
// by their first words or because they nearly are one, and that no key has.
func (l *loader) unknownVariables(environment []string) []string {
	var warnings []string
	for _, assignment := range environment {
		name, value, _ := strings.Cut(assignment, "=")
		if value == "" || !strings.HasPrefix(name, variableRoot+"_") || slices.Contains(l.asked, name) {
			continue
		}
		near, found := nearest(name, l.asked)
		found = found && levenshtein.ComputeDistance(name, near) <= maxMisspelt
		if !found && !hasSection(name) {
			continue
		}
		warning := fmt.Sprintf("the environment variable %s stands for no key of this configuration", name)
		if found {
			warning += ": did you mean " + near + "?"
		}
		warnings = append(warnings, warning)
	}
	slices.Sort(warnings)
	return warnings
}

func hasSection(variable string) bool {
	return slices.ContainsFunc(sections[:], func(key string) bool {
		return strings.HasPrefix(variable, variableOf(key)+"_")
	})
}
