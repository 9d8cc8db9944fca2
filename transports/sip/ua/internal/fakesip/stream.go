package fakesip

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
)

// streams are the connections of a server. They are known by their peers'
// addresses with a zone of IPv6, so that none is taken for one over UDP.
type streams struct {
	listener *net.TCPListener
	open     map[netip.AddrPort]net.Conn // guarded by the server's mu
	mute     bool                        // likewise: no pongs
}

func mapped(address net.Addr) netip.AddrPort {
	a := address.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()).WithZone(streamZone), a.Port())
}

const streamZone = "tcp"

func isStream(source netip.AddrPort) bool { return source.Addr().Zone() == streamZone }

func (s *Server) accept() {
	for {
		conn, err := s.streams.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.streams.open[mapped(conn.RemoteAddr())] = conn
		s.mu.Unlock()
		s.tasks.Go(func() { s.readStream(conn) })
	}
}

func (s *Server) readStream(conn net.Conn) {
	source := mapped(conn.RemoteAddr())
	defer func() {
		conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams.open, source)
	}()
	reader := bufio.NewReader(conn)
	for {
		packet, err := nextPacket(reader)
		if err != nil {
			return
		}
		if packet == nil {
			s.pong(conn)
			continue
		}
		s.receive(packet, source)
	}
}

// nextPacket returns nothing for a ping.
func nextPacket(reader *bufio.Reader) ([]byte, error) {
	if start, err := reader.Peek(4); err != nil {
		return nil, err
	} else if string(start) == "\r\n\r\n" {
		_, err := reader.Discard(4)
		return nil, err
	}
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	fields, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	length, err := strconv.Atoi(fields.Get("Content-Length"))
	if err != nil {
		return nil, err
	}
	var w strings.Builder
	w.WriteString(line)
	for name, values := range fields {
		for _, value := range values {
			w.WriteString(name + ": " + value + "\r\n")
		}
	}
	w.WriteString("\r\n")
	_, err = io.CopyN(&w, reader, int64(length))
	return []byte(w.String()), err
}

func (s *Server) pong(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.streams.mute {
		_, _ = conn.Write([]byte("\r\n")) // if it has gone, its reader notices
	}
}

// Mute makes the server leave pings unanswered, or answer them again.
func (s *Server) Mute(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.mute = mute
}

// Connections tells how many there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams.open)
}

// Hangup closes all connections.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.streams.open {
		conn.Close()
	}
}
