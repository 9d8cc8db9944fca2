// Command table puts what .ci/bench measured into docs/performance.md, between
// the marks that are there. What wasn't measured this time stays as it was.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	begin = "<!-- measured: written by make bench -->"
	end   = "<!-- end of measured -->"
	fence = "```\n"
)

// storages are those of the table, as their configuration and their people call
// them.
var storages = []struct{ plugin, name string }{{"pebble", "Pebble"}, {"postgres", "PostgreSQL"}}

// run is what imgate bench --json reports.
type run struct {
	Sent      int     `json:"sent"`
	PerSecond float64 `json:"per_second"`
	Latency   struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	Arrival struct {
		P99 float64 `json:"p99"`
	} `json:"arrival_ms"` // of bench smpp
	Server    usage `json:"server"`
	Generator usage `json:"generator"`
	Drain     *struct {
		PerSecond float64 `json:"per_second"`
		Server    usage   `json:"server"`
	} `json:"drain"`
	Acknowledged int `json:"acknowledged"`
	Arrived      int `json:"arrived"` // of bench smpp
	Lost         int `json:"lost"`
	Duplicates   int `json:"duplicates"`
	OutOfOrder   int `json:"out_of_order"`
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
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	old, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks to write between", page)
	}
	measured, err := section(results, string(old))
	if err != nil {
		return err
	}
	return os.WriteFile(page, bytes.Join([][]byte{before, []byte(begin + "\n" + measured), append([]byte(end), after...)}, nil), 0o644)
}

// section is what stands between the marks. old is what stood there.
func section(results, old string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs, %s/%s.\n\n", goVersion(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	b.WriteString("| storage | run | messages | a second | p50 | p99 | server: CPU a message | resident | generator: CPU a message | lost | twice | out of order |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range storages {
		rows, err := rows(results, s.plugin, s.name)
		if errors.Is(err, fs.ErrNotExist) {
			rows, err = linesOf(old, "| "+s.name+" |"), nil
		}
		if err != nil {
			return "", err
		}
		b.WriteString(rows)
	}
	smpp, err := smppRows(results)
	if errors.Is(err, fs.ErrNotExist) {
		smpp, err = linesOf(old, "| "+esmeToSMSC+" |")+linesOf(old, "| "+sipToSMSC+" |"), nil
	}
	if err != nil {
		return "", err
	}
	idle, err := idleRows(results)
	if errors.Is(err, fs.ErrNotExist) {
		idle, err = idleOf(old), nil
	}
	if err != nil {
		return "", err
	}
	conditions, err := conditions(results)
	if errors.Is(err, fs.ErrNotExist) {
		conditions, err = linesOf(old, "PostgreSQL "), nil
	}
	if err != nil {
		return "", err
	}
	if conditions != "" {
		b.WriteString("\n" + conditions)
	}
	if smpp != "" {
		b.WriteString("\n" + smppHead + smpp)
	}
	if idle != "" {
		b.WriteString("\n" + idle)
	}
	micro, err := os.ReadFile(filepath.Join(results, "micro.txt"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, kept, _ := strings.Cut(old, fence)
		b.WriteString("\n" + decisions(kept) + fence + kept)
	case err != nil:
		return "", err
	default:
		b.WriteString("\n" + decisions(string(micro)) + benchmarks(string(micro)))
	}
	return b.String(), nil
}

func linesOf(text, prefix string) (found string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			found += line
		}
	}
	return found
}

// rows are those of a storage.
func rows(results, plugin, name string) (string, error) {
	online, err := read(results, plugin+"-online")
	if err != nil {
		return "", err
	}
	offline, err := read(results, plugin+"-offline")
	if err != nil {
		return "", err
	}
	if offline.Drain == nil {
		return "", errors.New("the offline run reports no drain")
	}
	var b strings.Builder
	row := func(what string, r run, perSecond float64, server usage, latency string) {
		fmt.Fprintf(&b, "| %s | %s | %d | %.0f | %s | %.1f µs | %d MB | %.1f µs | %d | %d | %d |\n", name, what, r.Sent, perSecond, latency,
			server.CPU, server.Resident>>20, r.Generator.CPU, r.Lost, r.Duplicates, r.OutOfOrder)
	}
	latency := func(r run) string { return fmt.Sprintf("%.1f ms | %.1f ms", r.Latency.P50, r.Latency.P99) }
	row("online, delivered before the answer", online, online.PerSecond, online.Server, latency(online))
	row("offline, stored durably", offline, offline.PerSecond, offline.Server, latency(offline))
	row("the same, drained when they register", offline, offline.Drain.PerSecond, offline.Drain.Server, "– | –")
	return b.String(), nil
}

func read(dir, name string) (r run, err error) {
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(text, &r)
}

// conditions says how PostgreSQL was set, and what it took of the processors
// besides the server.
func conditions(results string) (string, error) {
	text, err := os.ReadFile(filepath.Join(results, "postgres.txt"))
	if err != nil {
		return "", err
	}
	version, settings, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(text)), "server_version="), "\n")
	var took [2]float64
	for i, name := range []string{"postgres-online", "postgres-offline"} {
		r, err := read(results, name)
		if err != nil {
			return "", err
		}
		cpu, err := os.ReadFile(filepath.Join(results, name+".cpu"))
		if err != nil {
			return "", err
		}
		micros, err := strconv.ParseFloat(strings.TrimSpace(string(cpu)), 64)
		if err != nil {
			return "", err
		}
		took[i] = micros / float64(r.Sent)
	}
	return fmt.Sprintf("PostgreSQL %s ran beside it on the same processors and disk, over TCP on loopback, with its default settings: %s. Its own processes took %.0f µs CPU a message online, and %.0f µs to store and drain one.\n",
		version, strings.Join(strings.Fields(settings), ", "), took[0], took[1]), nil
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
	b.WriteString(fence)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Benchmark") || strings.HasPrefix(line, "pkg:") {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	b.WriteString(fence)
	return b.String()
}
