package idle

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/imgate/imgate/transports/sip/ua/internal/process"
)

// report is what a run found. Sizes are in octets.
type report struct {
	Transport       string  `json:"transport"`
	Clients         int     `json:"clients"`
	RegisterSeconds float64 `json:"register_seconds"`
	HoldSeconds     float64 `json:"hold_seconds"`
	Connected       int     `json:"connected"` // after that time
	Sent            int     `json:"messages"`  // to so many of them, at the end
	Arrived         int     `json:"arrived"`
	Server          cost    `json:"server"`

	failed error // why a message didn't arrive
}

// cost is what the clients take of the server.
type cost struct {
	Before    int64   `json:"resident_before"`
	Resident  int64   `json:"resident"`
	PerClient float64 `json:"resident_per_client"`
	// Micros is the CPU time to take a client in: its handshakes and its registration.
	Micros float64 `json:"cpu_us_per_registration"`
}

func costOf(before, registered, after process.Usage, clients int) cost {
	return cost{
		Before: before.Resident, Resident: after.Resident,
		PerClient: float64(after.Resident-before.Resident) / float64(clients),
		Micros:    float64((registered.CPU - before.CPU).Microseconds()) / float64(clients),
	}
}

// verdict is nil if all stayed, and what was sent to them arrived.
func (r *report) verdict() error {
	switch {
	case r.Connected < r.Clients:
		return fmt.Errorf("%d of %d lost their connections while they were idle", r.Clients-r.Connected, r.Clients)
	case r.Arrived < r.Sent:
		return fmt.Errorf("%d of %d messages didn't arrive: %w", r.Sent-r.Arrived, r.Sent, r.failed)
	}
	return nil
}

func (r *report) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r *report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("clients", "%d over %s", r.Clients, r.Transport)
	row("registered", "in %.1f s, %.0f/s, %.0f µs CPU of the server each", r.RegisterSeconds, float64(r.Clients)/r.RegisterSeconds, r.Server.Micros)
	row("connected", "%d after %.0f s of silence", r.Connected, r.HoldSeconds)
	row("messages", "%d sent, %d arrived", r.Sent, r.Arrived)
	row("server", "%d MB resident before, %d MB after, %.1f KB a client", r.Server.Before>>20, r.Server.Resident>>20, r.Server.PerClient/1024)
	return t.Flush()
}
