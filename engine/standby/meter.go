package standby

import "github.com/imgate/imgate/engine/plugin"

// The roles, as metrics name them.
const (
	roleActive  = "active"
	roleStandby = "standby"
)

// meter counts what happens to the lease.
type meter struct {
	changes map[[2]string]*plugin.Counter // by role and reason
	failed  *plugin.Counter
}

func newMeter(metrics *plugin.Metrics, m *Member) *meter {
	c := &meter{
		changes: map[[2]string]*plugin.Counter{},
		failed:  metrics.Counter("lease_errors_total", "Calls of the storage about the lease that failed."),
	}
	for _, role := range []string{roleActive, roleStandby} {
		for _, why := range reasons {
			c.changes[[2]string{role, string(why)}] = metrics.Counter("role_changes_total", "How often this node became active, or a standby, and why.",
				plugin.Label{Name: "role", Value: role}, plugin.Label{Name: "reason", Value: string(why)})
		}
	}
	metrics.Gauge("lease_fence", "The fence of the newest lease that this node knows of.", func() float64 { return float64(m.Known().Fence) })
	return c
}

func (c *meter) change(role string, why Reason) { c.changes[[2]string{role, string(why)}].Inc() }
