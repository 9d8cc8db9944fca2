//go:build !linux

package wire

import (
	"net"
	"time"
)

// setUserTimeout does nothing: the system's own patience has to do.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
