package wire

import (
	"encoding/binary"
	"math"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// dest_flag: what follows it (SMPP 3.4 §5.2.25).
const (
	flagAddress uint8 = 1
	flagList    uint8 = 2
)

// maxDestinations is how many submit_multi may have (SMPP 3.4 §5.2.24).
const maxDestinations = 254

// readDestinations reads number_of_dests and dest_address(es).
func readDestinations(m *Multi, b []byte) ([]byte, error) {
	n, b, err := readOctet(b)
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxDestinations {
		return nil, &Error{RInvNumDests, "number_of_dests is not 1 to 254"}
	}
	for range n {
		if b, err = readDestination(m, b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func readDestination(m *Multi, b []byte) ([]byte, error) {
	flag, b, err := readOctet(b)
	if err != nil {
		return nil, err
	}
	switch flag {
	case flagAddress:
		var a Address
		a, b, err = destination.readAddress(b)
		m.Destinations = append(m.Destinations, a)
	case flagList:
		var name string
		name, b, err = distributionList.read(b)
		m.Lists = append(m.Lists, name)
	default:
		err = &Error{RInvDestFlag, "dest_flag is neither an address nor a list"}
	}
	return b, err
}

func appendDestinations(m *Multi, b []byte) (_ []byte, err error) {
	n := len(m.Destinations) + len(m.Lists)
	if n == 0 || n > maxDestinations {
		return b, &Error{RInvNumDests, "there are not 1 to 254 destinations"}
	}
	b = append(b, uint8(n))
	for i := range m.Destinations {
		if b, err = destination.appendAddress(append(b, flagAddress), &m.Destinations[i]); err != nil {
			return b, err
		}
	}
	for _, name := range m.Lists {
		if b, err = distributionList.append(append(b, flagList), name); err != nil {
			return b, err
		}
	}
	return b, nil
}

// readFailed reads no_unsuccess and unsuccess_sme(s).
func readFailed(m *MultiResp, b []byte) ([]byte, error) {
	n, b, err := readOctet(b)
	if err != nil {
		return nil, err
	}
	for range n {
		var f Failed
		if f.Address, b, err = destination.readAddress(b); err != nil {
			return nil, err
		}
		if len(b) < 4 {
			return nil, errTruncated
		}
		f.Status = pdu.Status(binary.BigEndian.Uint32(b))
		m.Failed = append(m.Failed, f)
		b = b[4:]
	}
	return b, nil
}

func appendFailed(m *MultiResp, b []byte) (_ []byte, err error) {
	if len(m.Failed) > math.MaxUint8 {
		return b, &Error{RInvNumDests, "there are over 255 failed destinations"}
	}
	b = append(b, uint8(len(m.Failed)))
	for i := range m.Failed {
		f := &m.Failed[i]
		if b, err = destination.appendAddress(b, &f.Address); err != nil {
			return b, err
		}
		b = binary.BigEndian.AppendUint32(b, uint32(f.Status))
	}
	return b, nil
}
