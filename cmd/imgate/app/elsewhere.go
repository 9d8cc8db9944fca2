package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// A text of the configuration may be elsewhere, so that the file has no secrets
// in it: `token: !env CRM_TOKEN` takes it from an environment variable, and
// `token: !file /run/secrets/crm` from a file, without the line break at its end.
const (
	tagEnv  = "!env"
	tagFile = "!file"
)

// maxElsewhere is how many octets such a text may have.
const maxElsewhere = 64 << 10

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func isElsewhere(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.Tag == tagEnv || n.Tag == tagFile)
}

// elsewhere fetches a text. What is wrong is told without what was found.
func (t tree) elsewhere(path string, n *yaml.Node, to reflect.Type) (string, bool) {
	text, err := fetch(n)
	if err == nil && !suits("!!str", to) {
		err = errors.New(expected(to) + "; only a text can be elsewhere")
	}
	if err == nil {
		_, err = parseScalar(text, to)
	}
	if err != nil {
		t.note(n.Line, path, "%s %s: %v", n.Tag, n.Value, err)
		return "", false
	}
	return text, true
}

func fetch(n *yaml.Node) (text string, err error) {
	if n.Tag == tagEnv {
		text, err = fromVariable(n.Value)
	} else {
		text, err = fromFile(n.Value)
	}
	switch {
	case err != nil:
		return "", err
	case text == "":
		return "", errors.New("it is empty")
	case len(text) > maxElsewhere:
		return "", fmt.Errorf("it has more than %d octets", maxElsewhere)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return "", errors.New("it isn't a text in UTF-8")
	}
	return text, nil
}

func fromVariable(name string) (string, error) {
	if !variableName.MatchString(name) {
		return "", errors.New("expected the name of an environment variable")
	}
	text, set := os.LookupEnv(name)
	if !set {
		return "", errors.New("the environment variable isn't set")
	}
	return text, nil
}

func fromFile(path string) (string, error) {
	if path == "" {
		return "", errors.New("expected the path of a file")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", errors.Unwrap(err) // the path is said already
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("expected a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxElsewhere+2)) // and a line break
	if err != nil {
		return "", errors.Unwrap(err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}
