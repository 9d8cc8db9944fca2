package process

import (
	"os"
	"testing"
	"time"
)

func TestCPUIn(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 8 0"
	for _, name := range []string{"(imgate)", "(a (b) c) 9)", "()"} {
		got, err := cpuIn([]byte("123 " + name + tail))
		if err != nil || got != 3*time.Second {
			t.Errorf("%s: %s, %v, want 3s", name, got, err)
		}
	}
	for _, stat := range []string{"", "123 (x", "123 (x) S 1 2", "123 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if _, err := cpuIn([]byte(stat)); err == nil {
			t.Errorf("%q was taken", stat)
		}
	}
}

func TestMemoryIn(t *testing.T) {
	const status = "Name:\timgate\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nVmBad:\tx kB\nVmNo:\n"
	for name, want := range map[string]int64{"VmRSS:": 1 << 20, "VmHWM:": 2 << 20, "VmBad:": 0, "VmNo:": 0, "VmNone:": 0} {
		if got := memoryIn([]byte(status), name); got != want {
			t.Errorf("%s %d, want %d", name, got, want)
		}
	}
}

func TestUsageOf(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("not Linux")
	}
	u, err := UsageOf(Self)
	if err != nil || u.Resident <= 0 || u.Peak < u.Resident {
		t.Errorf("got %+v, %v", u, err)
	}
}
