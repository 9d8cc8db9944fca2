package pipeline

// PLACEHOLDER: to be written.

// Reachable sets to work what waits for an instance. See plugin.Gate.
func (p *Pipeline) Reachable(instance string) {}
