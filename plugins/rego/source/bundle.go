package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// The names that files have in an OPA bundle.
const (
	signaturesName = ".signatures.json"
	manifestName   = ".manifest"
	patchName      = "patch.json"
)

// look looks at the bundle, and at the file of its key.
func (b BundleConfig) look() look {
	l := fileRoom(b.File).Look()
	if b.KeyFile == "" || l.Err != nil {
		return l
	}
	key := fileRoom(b.KeyFile).Look()
	l.Files, l.Err = append(l.Files, key.Files...), key.Err
	return l
}

// fileRoom is where one file is.
func fileRoom(name string) Room {
	dir, base := filepath.Split(filepath.Clean(name))
	if dir == "" {
		dir = "."
	}
	return Room{fsys: os.DirFS(dir), name: filepath.Clean(dir), only: []string{base}}
}

// read returns the policies, tests and data of the bundle, if its signature is
// good. OPA's rules say what of a bundle that is: *.rego, and data.json,
// data.yaml and data.yml in any directory.
func (b BundleConfig) read(ctx context.Context, now time.Time) ([]File, error) {
	archive, err := fileRoom(b.File).read(ctx)
	if err != nil {
		return nil, err
	}
	key, err := b.verificationKey(ctx)
	if err != nil {
		return nil, err
	}
	files, err := openArchive(archive[0].Text, key, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.File, err)
	}
	return files, nil
}

// openArchive unpacks and verifies a bundle.
func openArchive(archive []byte, key verificationKey, now time.Time) ([]File, error) {
	all, err := untar(archive)
	if err != nil {
		return nil, err
	}
	if err := key.verify(all, now); err != nil {
		return nil, err
	}
	if err := checkManifest(all[manifestName]); err != nil {
		return nil, err
	}
	if _, delta := all[patchName]; delta {
		return nil, errors.New("expected a whole bundle, found a delta bundle")
	}
	var files []File
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch {
		case !IsPolicy(name) && !isBundleData(name):
			continue
		case !Wanted(name):
			return nil, fmt.Errorf("%s: expected a name that doesn't begin with a point", name)
		}
		files = append(files, File{Path: name, Text: all[name]})
	}
	return files, nil
}

func isBundleData(name string) bool {
	base := path.Base(name)
	return base == "data.json" || bundle.IsYAMLDataFile(name)
}

// untar returns the files of an archive by their paths. It refuses what a
// bundle never has: links, paths that lead out, a file twice.
func untar(archive []byte) (map[string][]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("expected a bundle, a tar.gz: %w", err)
	}
	limited := &io.LimitedReader{R: unzipped, N: maxTotalSize}
	entries := tar.NewReader(limited)
	files := map[string][]byte{}
	for {
		header, err := entries.Next()
		switch {
		case limited.N <= 0:
			return nil, errTooMuch
		case errors.Is(err, io.EOF):
			return files, nil
		case err != nil:
			return nil, fmt.Errorf("expected a bundle, a tar.gz: %w", err)
		case header.Typeflag == tar.TypeDir:
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(header.Name, "./"), "/")
		switch _, twice := files[name]; {
		case header.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%q: expected files and directories, found a link or a device", name)
		case !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || len(name) > maxPath:
			return nil, fmt.Errorf("%q: expected a path within the bundle", name)
		case twice:
			return nil, fmt.Errorf("%s: expected it once", name)
		case len(files) == maxFiles || header.Size > MaxFileSize:
			return nil, errTooMuch
		}
		text, err := io.ReadAll(entries)
		if limited.N <= 0 {
			return nil, errTooMuch
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = text
	}
}

// checkManifest refuses what would be understood otherwise than it was meant.
// Which roots a bundle owns doesn't matter: there is one.
func checkManifest(text []byte) error {
	if text == nil {
		return nil
	}
	var manifest bundle.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	versions := slices.Collect(maps.Values(manifest.FileRegoVersions))
	if manifest.RegoVersion != nil {
		versions = append(versions, *manifest.RegoVersion)
	}
	if slices.ContainsFunc(versions, func(v int) bool { return v != 1 }) {
		return fmt.Errorf("%s: expected rego_version 1", manifestName)
	}
	return nil
}

// checkDigests compares the files with those that were signed: all of them, and
// no other.
func checkDigests(files map[string][]byte, signed map[string]bundle.FileInfo) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == signaturesName {
			continue
		}
		if bundle.IsSignaturesFile(name) {
			return fmt.Errorf("%s: expected one %s, at the top", name, signaturesName)
		}
		info := signed[name]
		if info.Name != "" && !strings.HasPrefix(info.Algorithm, "SHA-") || info.Algorithm == bundle.SHA1.String() {
			return fmt.Errorf("%s: expected a digest with SHA-256, SHA-384 or SHA-512, found %s", name, Clip(info.Algorithm))
		}
		if err := bundle.VerifyBundleFile(name, *bytes.NewBuffer(files[name]), signed); err != nil {
			return fmt.Errorf("it was changed after it was signed: %w", err)
		}
		if err := sameMeaning(name, files[name], info); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(signed)) {
		return fmt.Errorf("it was changed after it was signed: %s is missing", name)
	}
	return nil
}

// sameMeaning sees to it that data means to us what was signed. OPA signs what
// it reads in a file, not the file, and reads YAML otherwise than we do.
func sameMeaning(name string, text []byte, info bundle.FileInfo) error {
	if !isBundleData(name) {
		return nil
	}
	root, err := parseNode(File{Path: name, Text: text})
	if err != nil {
		return err
	}
	value, err := nodeValue(root)
	if err != nil {
		return fmt.Errorf("%s:%w", name, err)
	}
	hasher, err := bundle.NewSignatureHasher(bundle.HashingAlgorithm(info.Algorithm))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	digest, err := hasher.HashFile(value)
	if err != nil || hex.EncodeToString(digest) != strings.ToLower(info.Hash) {
		return fmt.Errorf("%s: it can be read in two ways: expected data in JSON", name)
	}
	return nil
}
