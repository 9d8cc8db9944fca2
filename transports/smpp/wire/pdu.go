package wire

import (
	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"
)

// Packet is one PDU (SMPP 3.4 §3.2).
type Packet struct {
	ID       pdu.ID
	Status   pdu.Status
	Sequence uint32
	Body     Body // by ID; nil where the PDU has no body, and in a response that leaves it out
	TLVs     TLVs
}

// Body is the mandatory parameters of a PDU.
type Body interface{ id() pdu.ID }

// TLVs are a PDU's optional parameters in their order.
type TLVs []TLV

// TLV is an optional parameter (SMPP 3.4 §3.2.4).
type TLV struct {
	Tag   pdutlv.Tag
	Value []byte
}

// Address is an address with its type of number and numbering plan (SMPP 3.4 §5.2.5).
type Address struct {
	TON, NPI uint8
	Number   string
}

// Bind asks for a session (SMPP 3.4 §4.1): Mode says which.
type Bind struct {
	Mode                           pdu.ID // BindReceiverID, BindTransmitterID, BindTransceiverID
	SystemID, Password, SystemType string
	InterfaceVersion               uint8
	AddressRange                   Address // Number is the range
}

// BindResp answers a bind: Mode is that of the request.
type BindResp struct {
	Mode     pdu.ID // BindReceiverRespID, …
	SystemID string
}

// Outbind asks an ESME to bind (SMPP 3.4 §4.1.7).
type Outbind struct{ SystemID, Password string }

// Short is submit_sm, deliver_sm or data_sm (SMPP 3.4 §4.4 to §4.7). data_sm has
// only the first part of the fields.
type Short struct {
	Of                                 pdu.ID // SubmitSMID, DeliverSMID, DataSMID
	ServiceType                        string
	Source, Destination                Address
	ESMClass                           uint8
	RegisteredDelivery                 uint8
	DataCoding                         uint8
	ProtocolID, Priority               uint8
	ScheduleTime, ValidityPeriod       string
	ReplaceIfPresent, DefaultMessageID uint8
	Text                               []byte // short_message; what message_payload holds is among the TLVs
}

// ShortResp answers it: with the name of the message.
type ShortResp struct {
	Of        pdu.ID // SubmitSMRespID, DeliverSMRespID, DataSMRespID
	MessageID string
}

// Multi is submit_multi (SMPP 3.4 §4.5).
type Multi struct {
	Short        // without Destination
	Destinations []Address
	Lists        []string // names of distribution lists
}

// MultiResp answers it.
type MultiResp struct {
	MessageID string
	Failed    []Failed
}

// Failed is a destination that submit_multi couldn't reach.
type Failed struct {
	Address
	Status pdu.Status
}

// Query is query_sm (SMPP 3.4 §4.8).
type Query struct {
	MessageID string
	Source    Address
}

// QueryResp answers it.
type QueryResp struct {
	MessageID, FinalDate string
	State, ErrorCode     uint8
}

// Cancel is cancel_sm (SMPP 3.4 §4.9).
type Cancel struct {
	ServiceType, MessageID string
	Source, Destination    Address
}

// Replace is replace_sm (SMPP 3.4 §4.10).
type Replace struct {
	MessageID                    string
	Source                       Address
	ScheduleTime, ValidityPeriod string
	RegisteredDelivery           uint8
	DefaultMessageID             uint8
	Text                         []byte
}
