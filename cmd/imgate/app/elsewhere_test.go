package app

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const inElsewhere = "transports:\n  sip:\n    domains: [a]\n    "

func TestTextsFromElsewhere(t *testing.T) {
	t.Setenv("CRM_TOKEN", "s3cret")
	file := write(t, "secret", "fr0m-a-file\r\n")
	exact := write(t, "exact", strings.Repeat("x", maxElsewhere)+"\n")
	for value, want := range map[string]string{
		"!env CRM_TOKEN":   "s3cret",
		"!env 'CRM_TOKEN'": "s3cret",
		"!file " + file:    "fr0m-a-file",
		"!file " + exact:   strings.Repeat("x", maxElsewhere),
	} {
		config := parse(t, inElsewhere+"token: "+value)
		if got := sipOf(t, config, "sip").Token; got != want {
			t.Errorf("%s: %.20q, want %.20q", value, got, want)
		}
	}
	t.Setenv("PATIENCE", "7s")
	config := parse(t, "transports:\n  sip:\n    domains: [!env CRM_TOKEN]\n    timeout: !env PATIENCE\n")
	if sip := sipOf(t, config, "sip"); sip.Domains[0] != "s3cret" || sip.Timeout != 7*time.Second {
		t.Errorf("%+v", sip)
	}
}

func TestTextsThatAreNowhere(t *testing.T) {
	t.Setenv("EMPTY", "")
	t.Setenv("CRM_TOKEN", "s3cret")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		"token: !env NOT_SET":                     "f:4: transports.sip.token: !env NOT_SET: the environment variable isn't set",
		"token: !env EMPTY":                       "f:4: transports.sip.token: !env EMPTY: it is empty",
		"token: !env a-b":                         "f:4: transports.sip.token: !env a-b: expected the name of an environment variable",
		"token: !env":                             "f:4: transports.sip.token: !env : expected the name of an environment variable",
		"token: !file":                            "f:4: transports.sip.token: !file : expected the path of a file",
		"token: !file /nowhere/file":              "f:4: transports.sip.token: !file /nowhere/file: no such file or directory",
		"token: !file " + t.TempDir():             "expected a regular file",
		"token: !file " + pipe:                    "expected a regular file",
		"token: !file " + write(t, "empty", "\n"): "it is empty",
		"token: !file " + write(t, "long", strings.Repeat("x", maxElsewhere+1)): "it has more than 65536 octets",
		"token: !file " + write(t, "binary", "s3cret\xff"):                      "it isn't a text in UTF-8",
		"timeout: !env CRM_TOKEN":                                               "f:4: transports.sip.timeout: !env CRM_TOKEN: expected a duration with a unit",
		"port: !env CRM_TOKEN":                                                  "f:4: transports.sip.port: !env CRM_TOKEN: expected a whole number; only a text can be elsewhere",
		"token: !other x":                                                       "found a value of type !other",
		"limits: !env CRM_TOKEN":                                                "expected a section, that is keys with values; found a value of type !env",
	} {
		_, err := parseConfig("f", []byte(inElsewhere+value), tinyPlugins())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %s", value, err, want)
		}
	}
}

// A secret isn't in what check prints, whatever becomes of it.
func TestCheckKeepsSecrets(t *testing.T) {
	t.Setenv("CRM_TOKEN", "s3cret")
	got := imgate(t.Context(), tinyPlugins(), "check", "--config", write(t, "c.yaml", inElsewhere+"token: !env CRM_TOKEN\n"))
	if got.status != exitOK || strings.Contains(got.out+got.err, "s3cret") {
		t.Errorf("%+v", got)
	}
}
