package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imgate/imgate/engine/message"
)

// post is a network in memory. What is sent to one address at once arrives at
// once, so that what a test sees doesn't depend on who runs first.
type post struct {
	mu      sync.Mutex
	boxes   map[string]*mailbox
	inVain  chan struct{} // closed when something was sent to nobody
	once    sync.Once
	letters atomic.Int64 // numbers for letters and addresses
}

var (
	errAddressInUse = errors.New("address in use")
	errNobodyThere  = errors.New("nobody there")
)

func newPost() *post { return &post{boxes: map[string]*mailbox{}, inVain: make(chan struct{})} }

func (p *post) open(address string) (*mailbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boxes[address] != nil {
		return nil, errAddressInUse
	}
	box := &mailbox{post: p, address: address, more: make(chan struct{}, 1)}
	p.boxes[address] = box
	return box, nil
}

// openAny opens a box at an address that nobody has.
func (p *post) openAny() *mailbox {
	box, err := p.open("peer-" + p.number())
	if err != nil {
		panic(err)
	}
	return box
}

func (p *post) number() string { return fmt.Sprint(p.letters.Add(1)) }

func (p *post) send(address string, letters ...letter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	box := p.boxes[address]
	if box == nil {
		p.once.Do(func() { close(p.inVain) })
		return errNobodyThere
	}
	for _, l := range letters {
		box.waiting = append(box.waiting, l.write())
	}
	select {
	case box.more <- struct{}{}:
	default:
	}
	return nil
}

// mailbox is an address at which somebody listens.
type mailbox struct {
	post    *post
	address string
	waiting [][]byte
	more    chan struct{} // something may be waiting
}

func (b *mailbox) close() {
	b.post.mu.Lock()
	defer b.post.mu.Unlock()
	delete(b.post.boxes, b.address)
}

// receive waits for what comes; nothing does if ctx ends first.
func (b *mailbox) receive(ctx context.Context) []letter {
	for {
		if letters := b.take(); len(letters) > 0 {
			return letters
		}
		select {
		case <-b.more:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *mailbox) take() []letter {
	b.post.mu.Lock()
	defer b.post.mu.Unlock()
	var letters []letter
	for _, text := range b.waiting {
		letters = append(letters, read(text))
	}
	b.waiting = nil
	return letters
}

// letter is what is sent: lines "Name: value", an empty line and a body.
type letter struct {
	head []message.Header
	body []byte
}

// newLetter makes a letter of names and values in turn.
func newLetter(body []byte, head ...string) letter {
	l := letter{body: body}
	for i := 0; i < len(head); i += 2 {
		l.head = append(l.head, message.Header{Name: head[i], Value: head[i+1]})
	}
	return l
}

func (l letter) write() []byte {
	var text bytes.Buffer
	for _, h := range l.head {
		text.WriteString(h.Name + ": " + h.Value + "\n")
	}
	text.WriteString("\n")
	text.Write(l.body)
	return text.Bytes()
}

// read takes a carriage return at the end of a line for a part of that.
func read(text []byte) letter {
	var l letter
	for {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if text = rest; len(line) == 0 {
			l.body = rest
			return l
		}
		name, value, _ := strings.Cut(string(line), ": ")
		l.head = append(l.head, message.Header{Name: name, Value: value})
	}
}

func (l letter) get(name string) string {
	for _, h := range l.head {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func (l letter) address(name string) message.Address {
	a, _ := message.ParseAddress(l.get(name))
	return a
}

// breaks tells whether a letter would be read otherwise than it is meant.
func (l letter) breaks() bool {
	for _, h := range l.head {
		if strings.ContainsAny(h.Name+h.Value, "\r\n") {
			return true
		}
	}
	return false
}
