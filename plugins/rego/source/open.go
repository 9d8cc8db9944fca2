package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/imgate/imgate/policies"
)

// Open reads what a configuration names.
func Open(ctx context.Context, config Config) (Source, error) {
	files, err := Read(ctx, config)
	if err != nil {
		return Source{}, err
	}
	s, errs := New(RoomName(config), files)
	return s, errors.Join(errs...)
}

// RoomName is what messages call the place of the policies.
func RoomName(config Config) string {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.File
	case config.Dir != "":
		return config.Dir
	}
	return "built-in"
}

// Read returns all files that a configuration names, as they were at one moment;
// those of a bundle only if its signature is good.
func Read(ctx context.Context, config Config) ([]File, error) {
	switch {
	case config.Bundle.File != "":
		return config.Bundle.read(ctx, time.Now())
	case config.Dir != "":
		return DirectoryRoom(config.Dir).read(ctx)
	}
	return builtIn()
}

// builtIn returns the policies that decide where nothing is configured.
func builtIn() ([]File, error) {
	files := make([]File, len(policies.Default))
	for i, name := range policies.Default {
		text, err := fs.ReadFile(policies.Files, name)
		if err != nil {
			return nil, fmt.Errorf("policies: %w", err)
		}
		files[i] = File{Path: name, Text: text}
	}
	return files, nil
}
