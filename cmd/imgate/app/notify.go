package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells the service manager how the node is (sd_notify(3)). Without a
// manager that listens, all that it is told goes nowhere.
type notifier struct {
	log *slog.Logger
	// patience is how long the manager waits for a sign of life before it ends
	// the process. Zero: it doesn't ask for any.
	patience time.Duration
}

func newNotifier(log *slog.Logger) *notifier {
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog can't be used", "reason", err)
	}
	return &notifier{log, patience}
}

// ready says that the node does its part, and which: it takes traffic, or
// stands by for another one that does.
func (n *notifier) ready(part string) { n.tell(daemon.SdNotifyReady, status(part)) }

// stopping says that the node comes to its end because it was told to.
func (n *notifier) stopping() { n.tell(daemon.SdNotifyStopping, status("drains")) }

// reload says that a reload begins, runs it, and says that it is over, whether
// it came to anything or not: the node works on in either case.
func (n *notifier) reload(do func() error) error {
	n.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	err := do()
	outcome := "has taken the changed configuration"
	if err != nil {
		outcome = "has refused the changed configuration and keeps the one before"
	}
	n.tell(daemon.SdNotifyReady, status(outcome))
	return err
}

// watch gives signs of life, two in the time that the manager waits for one,
// for as long as alive returns nil, until ctx ends. It returns at once if the
// manager asks for none.
func (n *notifier) watch(ctx context.Context, alive func() error) {
	if n.patience == 0 {
		return
	}
	ticker := time.NewTicker(n.patience / 2)
	defer ticker.Stop()
	for {
		n.giveSign(alive)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (n *notifier) giveSign(alive func() error) {
	err := alive()
	if err == nil {
		n.tell(daemon.SdNotifyWatchdog)
		return
	}
	n.log.Error("no sign of life for the service manager", "reason", err)
	n.tell(status("doesn't work: " + err.Error()))
}

// tell sends assignments, which are taken in together or not at all.
func (n *notifier) tell(assignments ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		n.log.Warn("the service manager can't be told", "what", assignments[0], "reason", err)
	}
}

// status is the line that systemctl status shows.
func status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", "; ") }
