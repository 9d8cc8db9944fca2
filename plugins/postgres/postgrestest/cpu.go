package postgrestest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// CPU returns the CPU time that the server's processes have used, those that
// have ended included.
func (s *Server) CPU() time.Duration {
	s.t.Helper()
	pids, err := childrenOf(s.running.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	total := cpuOf(s.running.pid)
	for _, pid := range pids {
		total += cpuOf(pid)
	}
	return total
}

// OwnCPU returns the CPU time that this process has used.
func OwnCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf returns what a process and its children that have ended have used
// (proc(5), stat: fields 14 to 17, in hundredths of a second). One that has
// ended is among its parent's.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 15 {
		return 0
	}
	var ticks int64
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
