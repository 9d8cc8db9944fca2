package free

import (
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Charging(t, func(plugintest.T) plugintest.ChargingHarness {
		tables := plugintest.NewTables()
		return plugintest.ChargingHarness{
			Tables: tables,
			Open: func(t plugintest.T) plugin.Charging {
				p, err := plugin.Open[plugin.Charging](t.Context(), Charging, plugin.Env{Instance: "charging", Tables: tables}, Charging.NewConfig())
				if err != nil {
					t.Fatalf("open: %v", err)
				}
				return p
			},
			Fund:      func(plugintest.T, string, int) {},
			Unlimited: true,
		}
	})
}
