package wire

// smallBuffer is what an idle connection holds, in octets: most messages fit.
const smallBuffer = 2 << 10

// inbox is what was read of a connection and not taken yet.
type inbox struct{ buffer []byte }

// room returns where to read to, nil if that would take more of the budget than
// there is. Only a message that doesn't fit makes the buffer larger, and only
// when its octets have come; it is small again when nothing is left in it.
func (i *inbox) room(b *budget) []byte {
	n := len(i.buffer)
	if n == 0 && cap(i.buffer) != smallBuffer {
		i.release(b)
		i.buffer = make([]byte, 0, smallBuffer)
	}
	if n == cap(i.buffer) {
		if !b.take(n) {
			return nil
		}
		i.buffer = append(make([]byte, 0, 2*n), i.buffer...)
	}
	return i.buffer[n:cap(i.buffer)]
}

// add tells how much was read into the room.
func (i *inbox) add(n int) { i.buffer = i.buffer[:len(i.buffer)+n] }

// release gives the buffer back.
func (i *inbox) release(b *budget) {
	b.give(max(0, cap(i.buffer)-smallBuffer))
	i.buffer = nil
}
