package pipeline

import (
	"context"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// PLACEHOLDERS: to be written.

// Find tells an account what has become of a message. See plugin.Gate.
func (p *Pipeline) Find(ctx context.Context, account, publicID string) (plugin.Submitted, error) {
	return plugin.Submitted{}, message.Fail(message.UnknownMessage, "not yet")
}

// CancelOf ends what waits of an account's messages. See plugin.Gate.
func (p *Pipeline) CancelOf(ctx context.Context, account string, which plugin.Which) (int, error) {
	return 0, message.Fail(message.UnknownMessage, "not yet")
}

// Replace puts another message in the place of one that waits. See plugin.Gate.
func (p *Pipeline) Replace(ctx context.Context, account, publicID string, by plugin.Replacement) error {
	return message.Fail(message.UnknownMessage, "not yet")
}
