// Package process tells what a process has used of the machine. It must not know
// what the process is for.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on all platforms that
// Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// Self is this process.
const Self = "self"

// Usage is what a process has used so far.
type Usage struct {
	CPU      time.Duration
	Resident int64 // octets
	Peak     int64 // octets
}

// UsageOf reads a process's usage from Linux' /proc.
func UsageOf(pid string) (Usage, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of process %s: %w", pid, err)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of process %s: %w", pid, err)
	}
	cpu, err := cpuIn(stat)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: cpu, Resident: memoryIn(status, "VmRSS:"), Peak: memoryIn(status, "VmHWM:")}, nil
}

var errBadStat = errors.New("/proc: can't read the CPU time of a process")

// cpuIn reads user and system time: fields 14 and 15 of stat. The second
// field, the name, may contain spaces and parentheses.
func cpuIn(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errBadStat
	}
	fields := bytes.Fields(stat[end+1:]) // the first is field 3
	if len(fields) < 13 {
		return 0, errBadStat
	}
	user, userErr := strconv.ParseInt(string(fields[11]), 10, 63)
	system, systemErr := strconv.ParseInt(string(fields[12]), 10, 63)
	if userErr != nil || systemErr != nil {
		return 0, errBadStat
	}
	return time.Duration(user+system) * tick, nil
}

// memoryIn reads a line such as "VmRSS:	  1234 kB" of status; 0 if it isn't there.
func memoryIn(status []byte, name string) int64 {
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != name {
			continue
		}
		n, err := strconv.ParseInt(string(fields[1]), 10, 53)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return 0
}
