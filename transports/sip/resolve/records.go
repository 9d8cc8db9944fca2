package resolve

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Limits of what is kept of one answer.
const (
	maxAddresses = 16
	maxServices  = 32 // records of SRV
	maxPointers  = 16 // records of NAPTR
)

// answer is what name servers say to one question. None of the lists is changed
// once it is known.
type answer struct {
	addresses []netip.Addr
	unrouted  bool // there is no address to which this machine has a way
	servers   []server
	pointers  []pointer
	ttl       time.Duration
}

// server is a record of SRV (RFC 2782).
type server struct {
	priority, weight, port uint16
	host                   string // ".": the service isn't there
}

// located is a server of a service over one network.
type located struct {
	network string
	server
}

// pointer is a record of NAPTR (RFC 3403) that names an SRV of SIP.
type pointer struct {
	order, preference uint16
	network           string // udp, tcp or tls
	replacement       string
}

// serviceName is what to look up as SRV.
type serviceName struct{ network, name string }

// servicePrefix is in front of the domain in the name of a service (RFC 3263
// §4.1). A URI with transport=tls asks for that of SIPS.
func servicePrefix(network string) string {
	switch network {
	case "udp":
		return "_sip._udp."
	case "tcp":
		return "_sip._tcp."
	}
	return "_sips._tcp."
}

// servicesIn are those that NAPTR points to, in order; to who asks for SIPS, no
// others (RFC 3263 §4.1). Two of one network are both good.
func servicesIn(pointers []pointer, secure bool) []serviceName {
	sorted := slices.Clone(pointers)
	slices.SortStableFunc(sorted, func(a, b pointer) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.preference, b.preference))
	})
	var services []serviceName
	for _, p := range sorted {
		if !secure || p.network == "tls" {
			services = append(services, serviceName{p.network, p.replacement})
		}
	}
	return services
}

// arrange puts servers in the order in which to try them: by priority, and of
// one priority by a draw in which the weight is the chance (RFC 2782).
func arrange(servers []server, draw func(n int) int) []server {
	left := slices.Clone(servers)
	slices.SortStableFunc(left, func(a, b server) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(min(a.weight, 1), min(b.weight, 1)))
	})
	arranged := make([]server, 0, len(left))
	for len(left) > 0 {
		same := slices.IndexFunc(left, func(s server) bool { return s.priority != left[0].priority })
		if same < 0 {
			same = len(left)
		}
		i := drawn(left[:same], draw)
		arranged = append(arranged, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return arranged
}

// drawn picks one of servers of the same priority, of which those without weight
// come first.
func drawn(servers []server, draw func(n int) int) int {
	total := 0
	for _, s := range servers {
		total += int(s.weight)
	}
	rest := draw(total + 1)
	for i, s := range servers {
		if rest -= int(s.weight); rest <= 0 {
			return i
		}
	}
	return len(servers) - 1
}

// read takes one record into the answer, if it is one of those that we need.
func (a *answer) read(record dns.RR) {
	switch record := record.(type) {
	case *dns.A:
		a.readAddress(record.A)
	case *dns.AAAA:
		a.readAddress(record.AAAA)
	case *dns.SRV:
		host, ok := hostName(record.Target)
		if record.Target == "." {
			host, ok = ".", true
		}
		if ok && (record.Port > 0 || host == ".") && len(a.servers) < maxServices {
			a.servers = append(a.servers, server{record.Priority, record.Weight, record.Port, host})
		}
	case *dns.NAPTR:
		network := pointedNetwork(record.Service)
		name, ok := serviceHost(record.Replacement)
		if ok && network != "" && strings.EqualFold(record.Flags, "s") && len(a.pointers) < maxPointers {
			a.pointers = append(a.pointers, pointer{record.Order, record.Preference, network, name})
		}
	}
}

// readAddress passes over what is nobody's own address.
func (a *answer) readAddress(ip net.IP) {
	address, ok := netip.AddrFromSlice(ip)
	address = address.Unmap()
	if ok && !address.IsUnspecified() && !address.IsMulticast() && len(a.addresses) < maxAddresses {
		a.addresses = append(a.addresses, address)
	}
}

// pointedNetwork reads the service of a NAPTR (RFC 3263 §4.1); empty: not ours.
func pointedNetwork(service string) string {
	switch lower(service) {
	case "sip+d2u":
		return "udp"
	case "sip+d2t":
		return "tcp"
	case "sips+d2t":
		return "tls"
	}
	return ""
}

func lower(s string) string { return strings.ToLower(s) }

// bareHost is a host without the brackets of an IPv6 address.
func bareHost(host string) string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ".")
}

// maxName is the longest name in octets, with its last dot (RFC 1035 §3.1: 255
// with the octets of the lengths).
const maxName = 254

// hostName reads the name of a host (RFC 1123 §2.1) and returns it fully
// qualified and in lower case. What looks like an IPv4 address isn't one.
func hostName(s string) (string, bool) {
	return domainName(s, isHostLabel)
}

// serviceHost reads the name of a service, whose labels may begin with _.
func serviceHost(s string) (string, bool) {
	return domainName(s, func(label string) bool { return isHostLabel(strings.TrimPrefix(label, "_")) })
}

func domainName(s string, isLabel func(string) bool) (string, bool) {
	s = lower(strings.TrimSuffix(s, "."))
	if s == "" || len(s)+1 > maxName {
		return "", false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return "", false
		}
		last = label
	}
	return s + ".", strings.Trim(last, "0123456789") != ""
}

func isHostLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
