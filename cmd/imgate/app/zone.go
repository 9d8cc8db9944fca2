package app

import (
	"time"
	_ "time/tzdata" // half a megabyte, so that zone works in a container without a database of zones
)

// zoneOf finds a time zone by its name; nil: there is none. "Local" is none: two
// nodes might differ in it.
func zoneOf(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || zone == time.Local {
		return nil
	}
	return zone
}
