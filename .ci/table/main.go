// Command table puts what .ci/bench measured into docs/performance.md, between
// the marks that are there.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

const (
	begin = "<!-- measured: written by make bench -->"
	end   = "<!-- end of measured -->"
)

// run is what imgate bench --json reports.
type run struct {
	Sent      int     `json:"sent"`
	PerSecond float64 `json:"per_second"`
	Latency   struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	Server    usage `json:"server"`
	Generator usage `json:"generator"`
	Drain     *struct {
		PerSecond float64 `json:"per_second"`
		Server    usage   `json:"server"`
	} `json:"drain"`
	Lost       int `json:"lost"`
	Duplicates int `json:"duplicates"`
	OutOfOrder int `json:"out_of_order"`
}

type usage struct {
	CPU      float64 `json:"cpu_us_per_message"`
	Resident int64   `json:"resident"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: table DIRECTORY-OF-RESULTS PAGE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func write(results, page string) error {
	var online, offline run
	if err := errors.Join(read(results, "online.json", &online), read(results, "offline.json", &offline)); err != nil {
		return err
	}
	if offline.Drain == nil {
		return errors.New("offline.json reports no drain")
	}
	micro, err := os.ReadFile(filepath.Join(results, "micro.txt"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks to write between", page)
	}
	measured := table(online, offline) + "\n" + benchmarks(string(micro))
	return os.WriteFile(page, bytes.Join([][]byte{before, []byte(begin + "\n" + measured), append([]byte(end), after...)}, nil), 0o644)
}

func read(dir, name string, into any) error {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func table(online, offline run) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs, %s/%s.\n\n", goVersion(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	b.WriteString("| run | messages | a second | p50 | p99 | server: CPU a message | resident | generator: CPU a message | lost | twice | out of order |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	row := func(name string, r run, perSecond float64, server usage, latency string) {
		fmt.Fprintf(&b, "| %s | %d | %.0f | %s | %.1f µs | %d MB | %.1f µs | %d | %d | %d |\n", name, r.Sent, perSecond, latency,
			server.CPU, server.Resident>>20, r.Generator.CPU, r.Lost, r.Duplicates, r.OutOfOrder)
	}
	latency := func(r run) string { return fmt.Sprintf("%.1f ms | %.1f ms", r.Latency.P50, r.Latency.P99) }
	row("online, delivered before the answer", online, online.PerSecond, online.Server, latency(online))
	row("offline, stored durably", offline, offline.PerSecond, offline.Server, latency(offline))
	row("the same, drained when they register", offline, offline.Drain.PerSecond, offline.Drain.Server, "– | –")
	return b.String()
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return runtime.Version()
}

// benchmarks keeps the lines that go test -bench prints for results.
func benchmarks(text string) string {
	var b strings.Builder
	b.WriteString("```\n")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Benchmark") || strings.HasPrefix(line, "pkg:") {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	b.WriteString("```\n")
	return b.String()
}
