//go:build package

package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	configFile   = "/etc/imgate/imgate.yaml"
	dataDir      = "/var/lib/imgate"
	packagedDir  = "/etc/imgate/policies"
	packagedFile = packagedDir + "/onnet.rego"
	unitFile     = "/lib/systemd/system/imgate.service"
)

// TestPackage installs the package that PACKAGE names on the machine that it
// runs on, starts its service as a service manager would, and removes it. It
// refuses a machine on which there is something of imgate's already.
func TestPackage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: installing a package needs root")
	}
	deb := os.Getenv("PACKAGE")
	if deb == "" {
		t.Fatal("PACKAGE names no package: run make package-test")
	}
	for _, place := range []string{"/etc/imgate", dataDir, "/usr/bin/imgate"} {
		if exists(place) {
			t.Fatalf("%s exists: this test would remove it", place)
		}
	}
	// Whatever happens. Without --purge there is nothing to remove, most often.
	t.Cleanup(func() { exec.Command("dpkg", "--purge", "imgate").Run() })

	t.Run("contents", func(t *testing.T) { checkContents(t, deb) })
	t.Run("lintian", func(t *testing.T) { checkLintian(t, deb) })
	installed := t.Run("install", func(t *testing.T) {
		command(t, "dpkg", "--install", deb)
		checkInstalled(t)
	})
	if !installed {
		return
	}
	t.Run("unit", checkUnit)
	t.Run("service", checkService)
	t.Run("reinstall", func(t *testing.T) { checkReinstall(t, deb) })
	t.Run("remove", checkRemove)
	t.Run("purge", checkPurge)
}

// command runs a program that must do what it is told, and returns what it
// prints.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// has tells whether a program is there, and says so in the log if it isn't.
func has(t *testing.T, program string) bool {
	t.Helper()
	_, err := exec.LookPath(program)
	if err != nil {
		t.Logf("SKIP: %s is missing, and with it what it would say", program)
	}
	return err == nil
}

// checkContents looks into the package and not at what is installed: a machine
// may leave out manuals.
func checkContents(t *testing.T, deb string) {
	dir := t.TempDir()
	found := unpack(t, deb, dir)
	for name, mode := range map[string]int64{
		"usr/bin/imgate":                                   0o755,
		"etc/imgate/imgate.yaml":                           0o640,
		strings.TrimPrefix(unitFile, "/"):                  0o644,
		"usr/share/man/man1/imgate.1.gz":                   0o644,
		"usr/share/man/man1/imgate-serve.1.gz":             0o644,
		"usr/share/man/man5/imgate.yaml.5.gz":              0o644,
		"usr/share/man/man7/imgate-policies.7.gz":          0o644,
		"usr/share/bash-completion/completions/imgate":     0o644,
		"usr/share/zsh/vendor-completions/_imgate":         0o644,
		"usr/share/fish/vendor_completions.d/imgate.fish":  0o644,
		"usr/share/doc/imgate/copyright":                   0o644,
		"usr/share/doc/imgate/changelog.gz":                0o644,
		"usr/share/doc/imgate/NOTICE":                      0o644,
		"usr/share/doc/imgate/examples/hello/imgate.yaml":  0o644,
		"usr/share/doc/imgate/examples/policies/README.md": 0o644,
		"usr/share/doc/imgate/policies/sms.rego":           0o644,
	} {
		if got, ok := found[name]; !ok || got != mode {
			t.Errorf("%s: mode %#o, there: %t; want %#o", name, got, ok, mode)
		}
	}
	for name := range found {
		if strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "etc/imgate/policies") {
			t.Errorf("%s is no file for a package", name)
		}
	}
	checkManuals(t, dir)
	script := filepath.Join(dir, "usr/share/bash-completion/completions/imgate")
	if out := command(t, "bash", "-ec", "source "+script+" && complete -p imgate"); !strings.Contains(out, "__start_imgate") {
		t.Errorf("bash: %s", out)
	}
}

// unpack returns the modes of the files in a package. All belong to root.
func unpack(t *testing.T, deb, dir string) map[string]int64 {
	t.Helper()
	command(t, "dpkg-deb", "--extract", deb, dir)
	archive, err := exec.CommandContext(t.Context(), "dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", header.Name, header.Uid, header.Gid)
		}
		if header.Typeflag == tar.TypeReg {
			found[path.Clean(header.Name)] = header.Mode & 0o7777
		}
	}
}

// checkManuals lets man and mandoc read every page: what they say is wrong.
func checkManuals(t *testing.T, dir string) {
	pages, err := filepath.Glob(filepath.Join(dir, "usr/share/man/man*/*.gz"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages of the manual, %v", len(pages), err)
	}
	man, mandoc := has(t, "man"), has(t, "mandoc")
	for _, page := range pages {
		name := strings.TrimSuffix(page, ".gz")
		inflate(t, page, name)
		if man {
			// -Z: only what would be said, without a terminal's idea of it.
			render := exec.CommandContext(t.Context(), "man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", name)
			render.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=")
			var complaints bytes.Buffer
			render.Stderr = &complaints
			if err := render.Run(); err != nil || complaints.Len() > 0 {
				t.Errorf("man: %s: %v\n%s", filepath.Base(name), err, &complaints)
			}
		}
		if mandoc {
			if out, err := exec.CommandContext(t.Context(), "mandoc", "-Tlint", "-Wwarning", name).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("mandoc: %v\n%s", err, out)
			}
		}
	}
}

func inflate(t *testing.T, from, to string) {
	t.Helper()
	file, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	if !reader.ModTime.IsZero() || reader.Name != "" {
		t.Errorf("%s holds a name or a date: no two builds are the same", filepath.Base(from))
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func checkLintian(t *testing.T, deb string) {
	if !has(t, "lintian") {
		return
	}
	command(t, "lintian", "--no-cfg", "--allow-root", "--fail-on", "error,warning", deb)
}

// owner returns the owner, group and mode of a file.
func owner(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "stat", "--format", "%U:%G %a", name))
}

func checkInstalled(t *testing.T) {
	for name, want := range map[string]string{
		"/usr/bin/imgate":        "root:root 755",
		configFile:               "root:imgate 640",
		packagedDir:              "root:root 755",
		packagedFile:             "root:root 644",
		packagedDir + "/.schema": "root:root 755",
		unitFile:                 "root:root 644",
		dataDir:                  "imgate:imgate 700",
	} {
		if got := owner(t, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	conffiles := command(t, "dpkg-query", "--show", "--showformat", "${Conffiles}", "imgate")
	if !strings.Contains(conffiles, " "+configFile+" ") || strings.Contains(conffiles, packagedDir) {
		t.Errorf("conffiles: %s", conffiles)
	}
	account, err := user.Lookup("imgate")
	if err != nil {
		t.Fatal(err)
	}
	if uid, _ := strconv.Atoi(account.Uid); uid == 0 || uid >= 1000 || account.HomeDir != dataDir {
		t.Errorf("the user imgate is %+v", account)
	}
	if out := command(t, "/usr/bin/imgate", "version"); !strings.HasPrefix(out, "imgate ") {
		t.Error(out)
	}
	if out := command(t, "/usr/bin/imgate", "check", "--config", configFile); out != configFile+": ok\n" {
		t.Errorf("imgate check: %s", out)
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for imgate\.service: ([0-9.]+)`)

// checkUnit lets systemd read the unit, and say how much it leaves open: 0 is
// nothing, 10 everything.
func checkUnit(t *testing.T) {
	if !has(t, "systemd-analyze") {
		return
	}
	if out := command(t, "systemd-analyze", "verify", "--man=no", unitFile); strings.Contains(out, "imgate") {
		t.Errorf("verify: %s", out)
	}
	out := command(t, "systemd-analyze", "security", "--offline=yes", "--no-pager", "imgate.service")
	found := exposure.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("security says no exposure:\n%s", out)
	}
	level, err := strconv.ParseFloat(found[1], 64)
	if err != nil || level >= 3 {
		t.Errorf("exposure %s, want less than 3\n%s", found[1], out)
	}
	t.Logf("exposure %s", found[1])
}

// checkReinstall: what an operator wrote is kept, with its owner and mode, and
// what was deleted stays so.
func checkReinstall(t *testing.T, deb string) {
	before, err := os.ReadFile(configFile)
	if err != nil {
		t.Fatal(err)
	}
	edited := append([]byte("# edited\n"), before...)
	if err := os.WriteFile(configFile, edited, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(packagedDir); err != nil {
		t.Fatal(err)
	}
	command(t, "dpkg", "--install", deb)
	after, err := os.ReadFile(configFile)
	if err != nil || !bytes.Equal(after, edited) {
		t.Errorf("what was edited is gone: %v\n%s", err, after)
	}
	if exists(packagedDir) {
		t.Errorf("%s was deleted, and is back", packagedDir)
	}
	if got := owner(t, configFile); got != "root:imgate 640" {
		t.Error(got)
	}
	if !exists(filepath.Join(dataDir, "admin.token")) {
		t.Error("the data are gone")
	}
}

// checkRemove: what can't be had again stays.
func checkRemove(t *testing.T) {
	command(t, "dpkg", "--remove", "imgate")
	for _, name := range []string{configFile, filepath.Join(dataDir, "admin.token")} {
		if !exists(name) {
			t.Errorf("%s is gone", name)
		}
	}
	for _, name := range []string{"/usr/bin/imgate", unitFile} {
		if exists(name) {
			t.Errorf("%s is left", name)
		}
	}
}

func checkPurge(t *testing.T) {
	command(t, "dpkg", "--purge", "imgate")
	for _, name := range []string{"/etc/imgate", dataDir, "/etc/systemd/system/imgate.service", "/etc/systemd/system/multi-user.target.wants/imgate.service"} {
		if exists(name) {
			t.Errorf("%s is left", name)
		}
	}
	left, err := filepath.Glob("/var/lib/systemd/deb-systemd-helper-*/*imgate*")
	if err != nil || len(left) > 0 {
		t.Errorf("left of the service: %v %v", left, err)
	}
	if out, err := exec.CommandContext(t.Context(), "getent", "passwd", "imgate").Output(); err == nil {
		t.Errorf("the user is left: %s", out)
	}
	if out, err := exec.CommandContext(t.Context(), "dpkg-query", "--show", "imgate").Output(); err == nil {
		t.Errorf("dpkg still knows %s", fmt.Sprintf("%q", out))
	}
}
