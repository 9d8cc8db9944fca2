package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestFilesAreUpToDate(t *testing.T) {
	if err := run("../../../policies/schema", true); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, true); err == nil {
		t.Error("missing files pass the check")
	}
	if err := run(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err != nil {
		t.Errorf("what was just written is out of date: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plan.schema.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err == nil || !strings.Contains(err.Error(), "out of date") {
		t.Errorf("a changed file passes the check: %v", err)
	}
}

func TestDescribeRefuses(t *testing.T) {
	for name, typ := range map[string]reflect.Type{
		"a type that JSON can't hold": reflect.TypeFor[struct {
			C chan int `json:"c" doc:"a channel"`
		}](),
		"a field without doc": reflect.TypeFor[struct {
			A int `json:"a"`
		}](),
		"a field without json": reflect.TypeFor[struct {
			A int `doc:"a number"`
		}](),
		"a default that isn't JSON": reflect.TypeFor[struct {
			A int `json:"a" doc:"a number" default:"one"`
		}](),
		"a list of what it can't describe": reflect.TypeFor[[]chan int](),
	} {
		if _, err := describe(typ, true); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
