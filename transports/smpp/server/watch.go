package server

// show tells the observers of a PDU: frame is the whole of it. A request and its
// response have their Call in common.
func (s *session) show(sent bool, frame []byte) {
	if !s.door.watched.Watched() {
		return
	}
	seen := s.wire.See(sent, frame)
	call := s.threads.Of(sent, frame)
	if call == "" {
		call = s.call(seen.Ours, seen.Sequence)
	}
	seen.Packet.Transport, seen.Packet.Call = s.door.instance, call
	s.door.watched.Packet(&seen.Packet)
}
