package app

import (
	"reflect"
	"strings"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

// listenAddresses returns what settings have under the key "listen", which
// those that listen have.
func listenAddresses(settings plugin.Config) []string {
	if settings == nil {
		return nil
	}
	value := reflect.ValueOf(settings).Elem()
	for i := range value.NumField() {
		if value.Type().Field(i).Tag.Get("yaml") != "listen" {
			continue
		}
		switch addresses := value.Field(i).Interface().(type) {
		case []string:
			return addresses
		case string:
			if addresses != "" { // else the plugin may take any
				return []string{addresses}
			}
		}
	}
	return nil
}

// checkListeners notes addresses that two want.
func (l *loader) checkListeners(c engine.Config) {
	taken := map[string]string{"tcp://" + strings.ToLower(c.AdminListen): "admin.listen"}
	for _, i := range c.Transports {
		if i.Plugin.Name == "" {
			continue // what it is isn't known, and that was noted
		}
		at := join(transportsKey, i.Name)
		for _, address := range listenAddresses(i.Settings) {
			address = strings.ToLower(address)
			socket := socketOf(address)
			if other, found := taken[socket]; found {
				l.wrongValue(at, "listen", address+" is taken by "+l.placeIn(other))
				continue
			}
			if !strings.HasSuffix(address, ":0") { // which is any port
				taken[socket] = join(at, "listen")
			}
		}
	}
}

// socketOf is what an address takes of the system: what isn't UDP goes over TCP,
// whatever else its scheme says of it.
func socketOf(address string) string {
	scheme, rest, found := strings.Cut(address, "://")
	if !found || scheme == "udp" {
		return address
	}
	return "tcp://" + rest
}
