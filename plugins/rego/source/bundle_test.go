package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/imgate/imgate/plugins/rego/regotest"
)

// signer makes bundles as opa does.
type signer struct {
	algorithm string
	key       string         // private, or the secret
	id        string         // of the key
	claims    map[string]any // beside the files
	digest    bundle.HashingAlgorithm
}

// sign returns the files with a signature of theirs.
func (s signer) sign(t testing.TB, files map[string]string) map[string]string {
	t.Helper()
	digest := s.digest
	if digest == "" {
		digest = bundle.SHA256
	}
	hasher, err := bundle.NewSignatureHasher(digest)
	if err != nil {
		t.Fatal(err)
	}
	var infos []bundle.FileInfo
	for _, name := range slices.Sorted(maps.Keys(files)) {
		var value any = []byte(files[name])
		if bundle.IsStructuredDoc(name) {
			if err := util.Unmarshal([]byte(files[name]), &value); err != nil {
				t.Fatal(err)
			}
		}
		hash, err := hasher.HashFile(value)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, bundle.NewFile(strings.TrimPrefix(name, "/"), fmt.Sprintf("%x", hash), digest.String()))
	}
	config := bundle.NewSigningConfig(s.key, s.algorithm, s.claimsFile(t))
	token, err := bundle.GenerateSignedToken(infos, config, s.id)
	if err != nil {
		t.Fatal(err)
	}
	return with(files, signaturesName, signaturesOf(t, token))
}

func (s signer) claimsFile(t testing.TB) string {
	if s.claims == nil {
		return ""
	}
	text, err := json.Marshal(s.claims)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "claims.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func signaturesOf(t testing.TB, tokens ...string) string {
	text, err := json.Marshal(bundle.SignaturesConfig{Signatures: tokens})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// with returns the files with another one.
func with(files map[string]string, name, text string) map[string]string {
	files = maps.Clone(files)
	files[name] = text
	return files
}

// archived is a tar.gz of headers and texts.
func archived(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, e := range entries {
		text := e.Uname // it is carried there
		e.Uname, e.Mode = "", 0o600
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(text))
		}
		if err := w.WriteHeader(&e); err != nil {
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

func regular(name, text string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Uname: text}
}

// archiveOf is the bundle of files, as opa names them.
func archiveOf(t testing.TB, files map[string]string) []byte {
	var entries []tar.Header
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, regular("/"+name, files[name]))
	}
	return archived(t, entries...)
}

func newRSA(t testing.TB) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

var bundled = map[string]string{
	".manifest":        `{"revision": "7", "roots": [""], "rego_version": 1}`,
	"a/a.rego":         regotest.AnyService,
	"a/a_test.rego":    regotest.TestsOfA,
	"data.json":        `{"domains": {"sms.example.com": {"service": "a"}}, "n": 1.50}`,
	"lists/data.yaml":  "dnd: [one, two]\n",
	"lists/other.json": `{"not": "data in a bundle"}`,
}

func written(t testing.TB, archive []byte) string {
	t.Helper()
	dir := regotest.RoomOf(t, map[string]string{"policies.tar.gz": string(archive)})
	return filepath.Join(dir, "policies.tar.gz")
}

func TestSignedBundle(t *testing.T) {
	private, public := newRSA(t)
	secret := strings.Repeat("s3cret", 10)
	keyFile := filepath.Join(regotest.RoomOf(t, map[string]string{"key.pem": public, "secret": secret + "\n"}), "key.pem")
	hour := time.Now().Add(time.Hour).Unix()
	for name, c := range map[string]struct {
		signer signer
		config BundleConfig
	}{
		"RS256":                    {signer{algorithm: "RS256", key: private}, BundleConfig{Key: public, Algorithm: "RS256"}},
		"PS512":                    {signer{algorithm: "PS512", key: private}, BundleConfig{Key: public, Algorithm: "PS512"}},
		"a key in a file":          {signer{algorithm: "RS256", key: private}, BundleConfig{KeyFile: keyFile, Algorithm: "RS256"}},
		"a key with an id":         {signer{algorithm: "RS256", key: private, id: "k1"}, BundleConfig{Key: public, Algorithm: "RS256", KeyID: "k1"}},
		"any id":                   {signer{algorithm: "RS256", key: private, id: "k1"}, BundleConfig{Key: public, Algorithm: "RS256"}},
		"a scope and times":        {signer{algorithm: "RS256", key: private, claims: map[string]any{"scope": "write", "exp": hour, "nbf": 1}}, BundleConfig{Key: public, Algorithm: "RS256", Scope: "write"}},
		"a secret":                 {signer{algorithm: "HS256", key: secret}, BundleConfig{Key: secret, Algorithm: "HS256"}},
		"a secret with a line end": {signer{algorithm: "HS256", key: secret + "\n"}, BundleConfig{KeyFile: filepath.Join(filepath.Dir(keyFile), "secret"), Algorithm: "HS256"}},
		"a digest of another kind": {signer{algorithm: "RS256", key: private, digest: bundle.SHA512}, BundleConfig{Key: public, Algorithm: "RS256"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.File = written(t, archiveOf(t, c.signer.sign(t, bundled)))
			config := Config{Bundle: c.config, Deadline: time.Second, Coverage: 100}
			if err := config.Validate(); err != nil {
				t.Fatal(err)
			}
			read, err := Open(t.Context(), config)
			if err != nil || len(read.Rows) != 1 || !strings.HasSuffix(read.Rows[0].Place, "policies.tar.gz/data.json:1") || fmt.Sprint(read.Data) != "map[lists:map[dnd:[one two]] n:1.50]" {
				t.Errorf("%v, %v, %v", read.Data, read.Rows, err)
			}
		})
	}
}

// A bundle that opa itself writes is read.
func TestBundleWrittenByOPA(t *testing.T) {
	private, public := newRSA(t)
	files := map[string]string{"a.rego": regotest.AnyService, "data.json": `{"n": 1}`}
	signed := regotest.SignedBundle(t, files, bundle.NewSigningConfig(private, "RS256", ""), "k")
	config := Config{Bundle: BundleConfig{File: written(t, signed), Key: public, Algorithm: "RS256"}}
	if s, err := Open(t.Context(), config); err != nil || len(s.Policies) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestBundleIsRefused(t *testing.T) {
	private, public := newRSA(t)
	other, _ := newRSA(t)
	good := signer{algorithm: "RS256", key: private, id: "k1", claims: map[string]any{"scope": "write"}}
	signed := good.sign(t, bundled)
	claimed := func(claims map[string]any) []byte {
		claims["scope"] = "write"
		return archiveOf(t, signer{algorithm: "RS256", key: private, id: "k1", claims: claims}.sign(t, bundled))
	}
	without := func(name string) map[string]string {
		files := maps.Clone(signed)
		delete(files, name)
		return files
	}
	var token bundle.SignaturesConfig
	if err := json.Unmarshal([]byte(signed[signaturesName]), &token); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token.Signatures[0], ".")
	none := "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ." + parts[1] + "."
	ambiguous := map[string]string{"a.rego": regotest.AnyService, "data.yaml": "n: 1.10\n"}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"no archive":               {[]byte("hello"), "expected a bundle, a tar.gz"},
		"half an archive":          {archiveOf(t, signed)[:600], "unexpected EOF"},
		"no signature":             {archiveOf(t, bundled), "it isn't signed"},
		"another key":              {archiveOf(t, signer{algorithm: "RS256", key: other, id: "k1", claims: map[string]any{"scope": "write"}}.sign(t, bundled)), "its signature isn't good"},
		"another algorithm":        {archiveOf(t, signer{algorithm: "RS512", key: private, id: "k1", claims: map[string]any{"scope": "write"}}.sign(t, bundled)), "it is signed with RS512: expected RS256"},
		"the public key as secret": {archiveOf(t, signer{algorithm: "HS256", key: public, id: "k1", claims: map[string]any{"scope": "write"}}.sign(t, bundled)), "it is signed with HS256: expected RS256"},
		"no algorithm":             {archiveOf(t, with(bundled, signaturesName, signaturesOf(t, none))), "it is signed with none: expected RS256"},
		"a signature cut off":      {archiveOf(t, with(bundled, signaturesName, signaturesOf(t, parts[0]+"."+parts[1]+"."))), "its signature isn't good"},
		"two signatures":           {archiveOf(t, with(bundled, signaturesName, signaturesOf(t, token.Signatures[0], token.Signatures[0]))), "expected one signature"},
		"no token":                 {archiveOf(t, with(bundled, signaturesName, `{"signatures": ["x"]}`)), "expected a JWT"},
		"a verifier of its own":    {archiveOf(t, with(bundled, signaturesName, `{"signatures": ["x"], "plugin": "p"}`)), "expected one signature"},
		"another key id":           {archiveOf(t, signer{algorithm: "RS256", key: private, id: "k2", claims: map[string]any{"scope": "write"}}.sign(t, bundled)), `it is signed with the key "k2": expected "k1"`},
		"another scope":            {archiveOf(t, signer{algorithm: "RS256", key: private, id: "k1", claims: map[string]any{"scope": "read"}}.sign(t, bundled)), "scope mismatch"},
		"no scope":                 {archiveOf(t, signer{algorithm: "RS256", key: private, id: "k1"}.sign(t, bundled)), "scope mismatch"},
		"expired":                  {claimed(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "its signature has expired"},
		"not yet good":             {claimed(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "its signature isn't good yet"},
		"a changed policy":         {archiveOf(t, with(signed, "a/a.rego", regotest.AnyService+"\n")), "it was changed after it was signed: a/a.rego: digest mismatch"},
		"changed data":             {archiveOf(t, with(signed, "data.json", `{"n": 2}`)), "it was changed after it was signed: data.json: digest mismatch"},
		"a file more":              {archiveOf(t, with(signed, "b.rego", "package b")), "file b.rego not included in bundle signature"},
		"a file less":              {archiveOf(t, without("a/a_test.rego")), "a/a_test.rego is missing"},
		"a second signatures file": {archiveOf(t, with(signed, "a/.signatures.json", "{}")), "a/.signatures.json: expected one"},
		"a weak digest":            {archiveOf(t, signer{algorithm: "RS256", key: private, id: "k1", claims: map[string]any{"scope": "write"}, digest: bundle.MD5}.sign(t, bundled)), "expected a digest with SHA-256"},
		"two readings":             {archiveOf(t, good.sign(t, ambiguous)), "data.yaml: it can be read in two ways"},
		"Rego of version 0":        {archiveOf(t, good.sign(t, with(bundled, ".manifest", `{"rego_version": 0}`))), "expected rego_version 1"},
		"a delta bundle":           {archiveOf(t, good.sign(t, with(bundled, "patch.json", `{"data": []}`))), "found a delta bundle"},
		"a hidden policy":          {archiveOf(t, good.sign(t, with(bundled, ".b.rego", "package b"))), ".b.rego: expected a name that doesn't begin with a point"},
		"a path that leads out":    {archived(t, regular("../a.rego", "")), `"../a.rego": expected a path within the bundle`},
		"a path with a backslash":  {archived(t, regular(`a\b.rego`, "")), "expected a path within the bundle"},
		"a path that isn't clean":  {archived(t, regular("a//b.rego", "")), "expected a path within the bundle"},
		"a file twice":             {archived(t, regular("a.rego", ""), regular("/a.rego", "")), "a.rego: expected it once"},
		"a link":                   {archived(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a.rego", Linkname: "/etc/passwd"}), "expected files and directories"},
		"a large file":             {archived(t, regular("a.rego", strings.Repeat(" ", MaxFileSize+1))), "expected at most"},
		"a bomb":                   {archived(t, regular("a.rego", strings.Repeat(" ", MaxFileSize)), regular("b.rego", strings.Repeat(" ", MaxFileSize)), regular("c.rego", strings.Repeat(" ", MaxFileSize)), regular("d.rego", strings.Repeat(" ", MaxFileSize))), "expected at most"},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{Bundle: BundleConfig{File: written(t, c.archive), Key: public, KeyID: "k1", Algorithm: "RS256", Scope: "write"}}
			_, err := Open(t.Context(), config)
			regotest.Wants(t, err, config.Bundle.File, c.want)
		})
	}
}

func TestKeysAreRefused(t *testing.T) {
	private, public := newRSA(t)
	file := written(t, archiveOf(t, bundled))
	for name, c := range map[string]struct {
		config BundleConfig
		want   string
	}{
		"a public key for a secret": {BundleConfig{Key: public, Algorithm: "HS256"}, "bundle.key: with HS256, expected a secret, found a key in PEM"},
		"a short secret":            {BundleConfig{Key: "secret", Algorithm: "HS512"}, "expected a secret of at least 32 octets"},
		"a secret for a public key": {BundleConfig{Key: "secret", Algorithm: "RS256"}, "with RS256, expected a public key in PEM"},
		"a private key":             {BundleConfig{Key: private, Algorithm: "RS256"}, "expected a public key in PEM, found a rsa private key"},
		"no file":                   {BundleConfig{KeyFile: file + ".pem", Algorithm: "RS256"}, "policies.tar.gz.pem: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.File = file
			_, err := Open(t.Context(), Config{Bundle: c.config})
			regotest.Wants(t, err, c.want)
			if strings.Contains(err.Error(), "MII") {
				t.Errorf("it shows a key: %v", err)
			}
		})
	}
}

// A new bundle is noticed, and so is a new key.
func TestWatchBundle(t *testing.T) {
	dir := regotest.RoomOf(t, map[string]string{"b.tar.gz": "b", "k.pem": "k"})
	synctest.Test(t, func(t *testing.T) {
		s := NewWatcher(Config{Bundle: BundleConfig{File: filepath.Join(dir, "b.tar.gz"), KeyFile: filepath.Join(dir, "k.pem"), Algorithm: "RS256"}})
		for _, name := range []string{"b.tar.gz", "k.pem"} {
			done := watching(t, s)
			time.Sleep(time.Minute)
			regotest.Put(t, dir, map[string]string{name: "another"})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		done := watching(t, s)
		if err := os.Remove(filepath.Join(dir, "b.tar.gz")); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzUntar opens anything as a bundle.
func FuzzUntar(f *testing.F) {
	f.Add(archiveOf(f, bundled))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		files, err := untar(archive)
		if err != nil {
			return
		}
		for name := range files {
			if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("it took %q", name)
			}
		}
	})
}

// To open a pipe that nobody writes to takes for ever.
func TestBundleIsAFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "policies.tar.gz")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := BundleConfig{File: pipe}.read(t.Context(), time.Now())
	regotest.Wants(t, err, "policies.tar.gz: expected a file")
}
