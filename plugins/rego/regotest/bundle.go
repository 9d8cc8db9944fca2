package regotest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"testing"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// SignedBundle is an OPA bundle of files, written and signed by OPA itself.
func SignedBundle(t testing.TB, files map[string]string, signing *bundle.SigningConfig, keyID string) []byte {
	t.Helper()
	loader := bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(archive(t, files)), "")
	made, err := bundle.NewCustomReader(loader).Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := made.GenerateSignature(signing, keyID, false); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).Write(made); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// archive is a tar.gz of files, named as opa does.
func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "/" + name, Mode: 0o600, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
