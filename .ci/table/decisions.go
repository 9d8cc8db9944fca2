package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// decision is a line of BenchmarkDecide: how many domains and expressions there
// are, how the recipient's is found, and the CPU time that it took.
var decision = regexp.MustCompile(`^BenchmarkDecide/domains=(\d+)/expressions=(\d+)/(exact|suffix|expression|miss)-\d+\s.*?([\d.]+) (?:cpu-)?ns/op(?:\s.*?([\d.]+) cpu-ns/op)?`)

// load is the line that says how long a table of 10,000 domains takes to load.
var load = regexp.MustCompile(`(?m)^BenchmarkLoad10000-\d+\s+\d+\s+([\d.]+) ns/op`)

var columns = []string{"exact", "suffix", "expression", "miss"}

// decisions is the table of what one decision costs; empty if none was measured.
func decisions(benchmarks string) string {
	type row struct{ domains, expressions string }
	var order []row
	cells := map[row]map[string]string{}
	for line := range strings.Lines(benchmarks) {
		m := decision.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := row{m[1], m[2]}
		if cells[r] == nil {
			order = append(order, r)
			cells[r] = map[string]string{}
		}
		cells[r][m[3]] = micros(m[4], m[5])
	}
	if len(order) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("CPU time of one decision, in µs, by how the recipient's domain is found, evaluated anew each time:\n\n")
	fmt.Fprintf(&b, "| domains | expressions besides | %s |\n|---|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, r := range order {
		fmt.Fprintf(&b, "| %s | %s |", r.domains, r.expressions)
		for _, column := range columns {
			fmt.Fprintf(&b, " %s |", or(cells[r][column], "–"))
		}
		b.WriteString("\n")
	}
	if m := load.FindStringSubmatch(benchmarks); m != nil {
		ns, _ := strconv.ParseFloat(m[1], 64) // a number, or load hadn't matched
		fmt.Fprintf(&b, "\nA data file of 10,000 domains is read, compiled and ready in %.2f s.\n", ns/1e9)
	}
	return b.String() + "\n"
}

// micros prefers the CPU time; a miss is too short for it to be told.
func micros(wall, cpu string) string {
	ns, _ := strconv.ParseFloat(or(cpu, wall), 64) // a number, by the expression
	return strconv.FormatFloat(ns/1000, 'f', 1, 64)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
