package source

import (
	"io/fs"
	"syscall"
)

// changed is when a file, its rights or its times were last changed, in
// nanoseconds since 1970: who sets the time of modification back can't set that.
func changed(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ctim.Nano()
	}
	return 0
}
