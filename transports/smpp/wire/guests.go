package wire

import (
	"net"
	"net/netip"
	"slices"
)

// guest is a connection that was let in.
type guest struct {
	conn net.Conn
	who  netip.Prefix
	peer netip.AddrPort
	left bool
}

// guests are the connections that are there, within the limits of a listener's
// configuration. They know nothing of locks.
type guests struct {
	open       int
	perAddress map[netip.Prefix]int
	strangers  []*guest // those that may have to make room, in the order in which they came
}

// makeRoom has a stranger leave: from who's address, or, if that is nobody's, from
// that which most of them share. Of its strangers it is the one that came first:
// somebody who means to bind does so at once. false: there is none.
func (g *guests) makeRoom(who netip.Prefix) bool {
	if who == (netip.Prefix{}) {
		who = g.crowd()
	}
	i := slices.IndexFunc(g.strangers, func(s *guest) bool { return s.who == who })
	if i < 0 {
		return false
	}
	s := g.strangers[i]
	g.leave(s)
	s.conn.Close()
	return true
}

// crowd is the address that most strangers share.
func (g *guests) crowd() (largest netip.Prefix) {
	size := map[netip.Prefix]int{}
	for _, s := range g.strangers {
		size[s.who]++
		if size[s.who] > size[largest] {
			largest = s.who
		}
	}
	return largest
}

func (g *guests) enter(s *guest, isStranger bool) {
	g.open++
	g.perAddress[s.who]++
	if isStranger {
		g.strangers = append(g.strangers, s)
	}
}

func (g *guests) leave(s *guest) {
	if s.left {
		return
	}
	s.left = true
	g.open--
	if g.perAddress[s.who]--; g.perAddress[s.who] == 0 {
		delete(g.perAddress, s.who)
	}
	g.strangers = slices.DeleteFunc(g.strangers, func(o *guest) bool { return o == s })
}

// know says that somebody is no stranger.
func (g *guests) know(peer netip.AddrPort) {
	g.strangers = slices.DeleteFunc(g.strangers, func(s *guest) bool { return s.peer == peer })
}
