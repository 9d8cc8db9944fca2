package tools

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/source"
)

// formatFlags are the flags of policy fmt.
type formatFlags struct {
	dir   *string
	check *bool
	diff  *bool
}

func setupFormat(flags *flag.FlagSet) plugin.Run {
	f := formatFlags{
		dir:   flags.String("dir", "", "the `DIR` of the policies, as an argument"),
		check: flags.Bool("check", false, "write nothing, list the files that aren't in the format, and exit with 1 if there are any"),
		diff:  flags.Bool("diff", false, "write nothing, show what would change"),
	}
	return f.format
}

func (f *formatFlags) format(_ context.Context, in plugin.Invocation) error {
	files, err := f.files(in)
	if err != nil {
		return err
	}
	changed, wrong := 0, 0
	for _, file := range files {
		differs, err := f.one(in.Out, file)
		if err != nil {
			wrong++
			for _, e := range decide.InWords(err) {
				fmt.Fprintln(in.Err, printable(e.Error()))
			}
		}
		if differs {
			changed++
		}
	}
	switch {
	case wrong > 0:
		return fmt.Errorf("%s left alone", count(wrong, "file"))
	case *f.check && changed > 0:
		return fmt.Errorf("%s not in the format", count(changed, "file"))
	}
	return nil
}

// files returns the files of policies and tests that were named, and those in
// directories that were.
func (f *formatFlags) files(in plugin.Invocation) ([]string, error) {
	named := in.Args
	if *f.dir != "" {
		named = append(named[:len(named):len(named)], *f.dir)
	}
	if dir := in.Settings.(*source.Config).Dir; len(named) == 0 && dir != "" {
		named = []string{dir}
	}
	if len(named) == 0 {
		return nil, plugin.Usage("expected files or directories, for example: policy fmt ./policies")
	}
	var files []string
	for _, name := range named {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, name)
			continue
		}
		within, err := policyFiles(name)
		if err != nil {
			return nil, err
		}
		if len(within) == 0 {
			return nil, fmt.Errorf("%s: expected policies in files *.rego, found none", name)
		}
		files = append(files, within...)
	}
	return files, nil
}

// policyFiles returns *.rego of a directory, tests too: those that policies are
// read from.
func policyFiles(dir string) (files []string, err error) {
	seen := source.DirectoryRoom(dir).Look()
	for _, f := range seen.Files {
		if source.IsPolicy(f.Path) {
			files = append(files, filepath.Join(dir, filepath.FromSlash(f.Path)))
		}
	}
	return files, seen.Err
}

// one formats a file, or says that it should be.
func (f *formatFlags) one(out io.Writer, name string) (differs bool, err error) {
	before, err := readLimited(name)
	if err != nil {
		return false, err
	}
	after, err := formatted(name, before)
	if err != nil || bytes.Equal(before, after) {
		return false, err
	}
	switch {
	case *f.diff:
		fmt.Fprint(out, printable(unified(name, string(before), string(after))))
	case *f.check:
		fmt.Fprintln(out, name)
	default:
		err = replaceFile(name, after)
		fmt.Fprintln(out, name)
	}
	return true, err
}

// formatted returns a file in OPA's format. OPA has been known to write what it
// can't read: then the file stays as it is.
func formatted(name string, text []byte) (after []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			after, err = nil, fmt.Errorf("%s: OPA's formatter panicked: %v", name, fault)
		}
	}()
	after, err = format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, err
	}
	if _, err := ast.ParseModuleWithOpts(name, string(after), ast.ParserOptions{RegoVersion: ast.RegoV1}); err != nil {
		return nil, fmt.Errorf("%s: OPA's formatter makes of it what can't be parsed: %w", name, err)
	}
	return after, nil
}

// readLimited reads a file that isn't larger than policies may be.
func readLimited(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, name, source.MaxFileSize)
}

// readAtMost reads all there is, if it isn't more than limit octets.
func readAtMost(in io.Reader, name string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: expected at most %d octets", name, limit)
	}
	return text, err
}

// replaceFile puts a text in a file's place at once, with the file's mode: who
// reads the directory meanwhile sees the one or the other. A link stays a link.
func replaceFile(name string, text []byte) error {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(target), ".fmt-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(info.Mode().Perm()), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
