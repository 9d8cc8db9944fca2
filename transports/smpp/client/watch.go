package client

import "fmt"

// show tells the observers of a PDU: frame is the whole of it. What belongs to one
// exchange has the delivery's reference in common, or the bind's name and the
// sequence number.
func (b *bind) show(sent bool, frame []byte) {
	c := b.client
	if !c.watched.Watched() {
		return
	}
	seen := b.session.See(sent, frame)
	seen.Packet.Transport, seen.Packet.Call = c.instance, b.threads.Of(sent, frame)
	if seen.Packet.Call == "" {
		seen.Packet.Call = b.call(seen.Ours, seen.Sequence)
	}
	c.watched.Packet(&seen.Packet)
}

// call names an exchange that we, or the SMSC, have begun on a bind.
func (b *bind) call(ours bool, sequence uint32) string {
	if ours {
		return fmt.Sprintf("%s-%d", b.name, sequence)
	}
	return fmt.Sprintf("%s-in-%d", b.name, sequence)
}
