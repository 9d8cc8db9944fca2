package smpp

import "testing"

// TestDefinitions: both speak the same protocol, one of them has registrations, and
// both can be opened as they are built in.
func TestDefinitions(t *testing.T) {
	if Plugin.Registrar || !Server.Registrar {
		t.Error("ESMEs register by their binds, an SMSC doesn't")
	}
	if Plugin.Protocol != protocol || Server.Protocol != protocol {
		t.Errorf("%q and %q", Plugin.Protocol, Server.Protocol)
	}
	for name, config := range map[string]interface{ Validate() error }{Plugin.Name: Plugin.NewConfig(), Server.Name: Server.NewConfig()} {
		if err := config.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
