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
	told := s // so that nothing leaves the stack while nobody watches
	if told.Ended.IsZero() {
		told.Ended = time.Now()
	}
	if told.Began.IsZero() {
		told.Began = told.Ended
	}
	defer func() {
		if cause := recover(); cause != nil && p.notices.due(notice{what: "observers", reason: "panic"}, told.Ended) > 0 {
			p.Log.Error("an observer panicked", "id", told.Message.ID, "reason", cause, "stack", string(debug.Stack()))
		}
	}()
	p.Observers.Step(&told)
}
