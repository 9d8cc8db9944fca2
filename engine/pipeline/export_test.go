package pipeline

// Kept is how many names of parts, and lanes that found no way, are remembered.
func (p *Pipeline) Kept() (n int) {
	p.reports.mu.Lock()
	n = len(p.reports.byPeer)
	p.reports.mu.Unlock()
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	for _, lanes := range p.lanes.unreached {
		n += len(lanes)
	}
	return n
}

// Running is how many lanes are at work.
func (p *Pipeline) Running() int { return p.lanes.running() }
