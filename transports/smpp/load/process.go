package load

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

// self is the generator's own process in /proc.
const self = "self"

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration
	resident int64 // octets
}

var errBadStat = errors.New("/proc: can't read what a process uses")

// usageOf reads a process's usage from Linux' /proc: fields 14, 15 and 24 of its
// stat. The second one, the name, may contain spaces and parentheses.
func usageOf(pid string) (usage, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return usage{}, fmt.Errorf("read the usage of process %s: %w", pid, err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the first is field 3
	if len(fields) < 22 {
		return usage{}, errBadStat
	}
	var values [3]int64
	for i, field := range []int{14, 15, 24} {
		if values[i], err = strconv.ParseInt(string(fields[field-3]), 10, 64); err != nil {
			return usage{}, errBadStat
		}
	}
	return usage{cpu: time.Duration(values[0]+values[1]) * tick, resident: values[2] * int64(os.Getpagesize())}, nil
}

// sample is what the gateway and the generator have used so far; nil: unknown.
type sample struct{ server, generator *usage }

func takeSample(pid string) (sample, error) {
	var s sample
	if own, err := usageOf(self); err == nil { // else this isn't Linux
		s.generator = &own
	}
	if pid == "" {
		return s, nil
	}
	server, err := usageOf(pid)
	if err != nil {
		return s, err
	}
	s.server = &server
	return s, nil
}
