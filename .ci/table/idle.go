package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// networks are those of the table of idle clients, as the flag and people call them.
var networks = []struct{ flag, name string }{{"tcp", "TCP"}, {"tls", "TLS"}, {"ws", "WS"}, {"wss", "WSS"}}

const idleBegin = "Clients that are idle"

const idleHead = `, each registered over a connection of its own, all from one
address, on Pebble. What the server has more of afterwards, divided by their number,
is memory of all kinds: connections, buffers, stacks, bindings, and what the
collector leaves. TLS is 1.3 with a certificate of P-256:

| network | clients | registered a second | server: CPU to take one in | resident before | after | a client | still connected | after | messages that arrived |
|---|---|---|---|---|---|---|---|---|---|
`

// idleRun is what imgate bench idle --json reports.
type idleRun struct {
	Clients         int     `json:"clients"`
	RegisterSeconds float64 `json:"register_seconds"`
	HoldSeconds     float64 `json:"hold_seconds"`
	Connected       int     `json:"connected"`
	Sent            int     `json:"messages"`
	Arrived         int     `json:"arrived"`
	Server          struct {
		Before    int64   `json:"resident_before"`
		Resident  int64   `json:"resident"`
		PerClient float64 `json:"resident_per_client"`
		Micros    float64 `json:"cpu_us_per_registration"`
	} `json:"server"`
}

// idleRows are those of all networks, with what stands above them.
func idleRows(results string) (string, error) {
	var b strings.Builder
	b.WriteString(idleBegin + idleHead)
	for _, n := range networks {
		text, err := os.ReadFile(filepath.Join(results, "idle-"+n.flag+".json"))
		if err != nil {
			return "", err
		}
		var r idleRun
		if err := json.Unmarshal(text, &r); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "| %s | %d | %.0f | %.0f µs | %d MB | %d MB | %.1f KB | %d | %.0f s | %d of %d |\n", n.name, r.Clients, float64(r.Clients)/r.RegisterSeconds,
			r.Server.Micros, r.Server.Before>>20, r.Server.Resident>>20, r.Server.PerClient/1024, r.Connected, r.HoldSeconds, r.Arrived, r.Sent)
	}
	return b.String(), nil
}

// idleOf is the table of an earlier run: up to the line behind it.
func idleOf(old string) string {
	_, rest, found := strings.Cut(old, "\n"+idleBegin)
	if !found {
		return ""
	}
	text, table, _ := strings.Cut(rest, "\n\n|")
	rows, _, _ := strings.Cut(table, "\n\n")
	return idleBegin + text + "\n\n|" + rows + "\n"
}
