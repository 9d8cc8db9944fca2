// Command schemagen writes the JSON Schemas of plugin.Question and plugin.Plan
// from their Go declarations, for OPA's type checker and for the editors of
// operators. With -check it writes nothing and fails if a file is out of date.
// It knows the tags of those two structs and nothing of policies.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".", "the `directory` of the schemas")
	check := flag.Bool("check", false, "write nothing, fail if a file is out of date")
	flag.Parse()

	if err := run(*dir, *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	handle := write
	if check {
		handle = compare
	}
	return errors.Join(
		generate(filepath.Join(dir, "question.schema.json"), question, handle),
		generate(filepath.Join(dir, "plan.schema.json"), plan, handle),
	)
}

func generate(path string, schema func() ([]byte, error), handle func(string, []byte) error) error {
	text, err := schema()
	if err != nil {
		return err
	}
	return handle(path, text)
}

func write(path string, text []byte) error { return os.WriteFile(path, text, 0o644) }

func compare(path string, text []byte) error {
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, text) {
		return fmt.Errorf("%s is out of date: run go generate ./plugins/rego", path)
	}
	return nil
}
