package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// sight is what can be seen of a server without being let in: whether it is
// ready, and its metrics.
type sight struct {
	*scrape
	node      string   // what the configuration calls it
	address   string   // of its admin API
	reasons   []string // why it isn't ready; none: it is
	told      string   // the same in words, as the server says it
	remarks   []string // what is wrong and keeps it from nothing
	elsewhere *cluster // of a standby that says which node is active
}

// lookAt looks at a server.
func lookAt(ctx context.Context, c *client) (*sight, error) {
	told, err := readReadiness(ctx, c)
	if err != nil {
		return nil, err
	}
	scraped, err := readScrape(ctx, c, time.Now())
	if err != nil {
		return nil, err
	}
	return &sight{
		scrape: scraped, node: c.node, address: c.address,
		reasons: told.Reasons, told: told.Error, remarks: told.Remarks, elsewhere: lookElsewhere(ctx, c, told.Reasons),
	}, nil
}

// lookElsewhere asks a standby which node is active. It takes the token to know
// that: nil for whoever hasn't got it.
func lookElsewhere(ctx context.Context, admin plugin.AdminClient, reasons []string) *cluster {
	if !standsBy(reasons) {
		return nil
	}
	if c, err := readCluster(ctx, admin); err == nil && c.elsewhere() != "" {
		return &c
	}
	return nil
}

// standsBy tells whether a node isn't ready because another one is active.
func standsBy(reasons []string) bool { return slices.Contains(reasons, string(message.Standby)) }

// readiness is what /readyz says.
type readiness struct {
	Reasons []string `json:"reasons"` // why it isn't ready, for programs
	Error   string   `json:"error"`   // the same for people
	Remarks []string `json:"remarks"`
}

// readReadiness asks why a server isn't ready.
func readReadiness(ctx context.Context, c *client) (told readiness, err error) {
	status, content, err := c.page(ctx, "/readyz")
	if err != nil {
		return told, err
	}
	if err := json.Unmarshal(content, &told); err != nil {
		return told, fmt.Errorf("the answer of the server at %s can't be read: %w", c.address, err)
	}
	if status != http.StatusOK && len(told.Reasons) == 0 {
		told = readiness{Reasons: []string{fmt.Sprintf("it answers %d", status)}}
	}
	return told, nil
}

// readiness is "ready", or why not. A standby that has no other reason is as it
// should be.
func (s *sight) readiness() string {
	switch {
	case len(s.reasons) == 0:
		return "ready"
	case len(s.reasons) > 1 || !standsBy(s.reasons):
		return "not ready: " + printable(strings.Join(s.reasons, ", "))
	case s.elsewhere != nil:
		return s.reasons[0] + ": " + s.elsewhere.elsewhere()
	}
	return printable(strings.TrimPrefix(cmp.Or(s.told, s.reasons[0]), "not ready: "))
}

// counts tells whether there is anything to count: only the active node has a
// spool.
func (s *sight) counts() bool { return len(s.series(metricPrefix+"spool_messages")) > 0 }

// active is the node that is the active one; empty: that isn't known.
func (s *sight) active() string {
	switch {
	case len(s.reasons) == 0:
		return s.node
	case s.elsewhere != nil:
		return s.elsewhere.Active
	}
	return ""
}

// version is what the server says it is.
func (s *sight) version() string {
	for _, m := range s.series(metricPrefix + "build_info") {
		return labelOf(m, "version")
	}
	return ""
}

// uptime is how long the process has run; 0 if it doesn't say.
func (s *sight) uptime() time.Duration {
	start := s.sum("process_start_time_seconds")
	if start == 0 {
		return 0
	}
	return s.at.Sub(time.UnixMilli(int64(start * 1000))).Round(time.Second)
}

// total reads one of our metrics as a whole number.
func (s *sight) total(name string, labels ...string) int64 {
	return int64(s.sum(metricPrefix+name, labels...))
}

// totals reads one of our metrics by the values of a label, without those that
// are zero.
func (s *sight) totals(name, label string) map[string]int64 {
	all := map[string]int64{}
	for _, value := range s.values(label, metricPrefix+name) {
		all[value] = s.total(name, label, value)
	}
	maps.DeleteFunc(all, func(_ string, n int64) bool { return n == 0 })
	return all
}

// oldest is how long the oldest message has waited.
func (s *sight) oldest() time.Duration {
	return inSeconds(s.sum(metricPrefix + "spool_oldest_age_seconds")).Round(time.Second)
}

// byCount sorts the keys of counts: the greatest first, then by name.
func byCount[N int64 | float64](counts map[string]N) []string {
	names := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case counts[a] > counts[b]:
			return -1
		case counts[a] < counts[b]:
			return 1
		}
		return 0
	})
	return names
}
