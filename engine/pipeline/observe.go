package pipeline

import (
	"runtime/debug"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// tell passes a step on to those who watch. One without times took none.
func (p *Pipeline) tell(s plugin.Step) {
	if !p.Observers.Watched() {
		return
	}
	if s.Ended.IsZero() {
		s.Ended = time.Now()
	}
	if s.Began.IsZero() {
		s.Began = s.Ended
	}
	defer func() {
		if cause := recover(); cause != nil && p.notices.due(notice{what: "observers", reason: "panic"}, s.Ended) > 0 {
			p.Log.Error("an observer panicked", "id", s.Message.ID, "reason", cause, "stack", string(debug.Stack()))
		}
	}()
	p.Observers.Step(&s)
}
