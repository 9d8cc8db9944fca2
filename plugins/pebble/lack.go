package pebble

import (
	"fmt"
	"sync"
)

// lack is what the disk lacks while the guard waits for it: space, or file
// descriptors.
type lack struct {
	mu    sync.Mutex
	waits int // changes of files that wait
	cause error
	begun chan struct{} // closed while any waits
}

// begins notes that a change waits, and why.
func (l *lack) begins(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits++
	if l.waits == 1 {
		l.cause = cause
		close(l.begun)
	}
}

// ends notes that a change that waited has been done.
func (l *lack) ends() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits--
	if l.waits == 0 {
		l.cause, l.begun = nil, make(chan struct{})
	}
}

// felt is closed while any change waits.
func (l *lack) felt() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// err tells an operator what is missing.
func (l *lack) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		return errLackOver
	}
	return fmt.Errorf("the disk can't take what is written, the store waits for it: %w", l.cause)
}
