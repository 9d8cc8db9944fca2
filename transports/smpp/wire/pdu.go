package wire

import "github.com/fiorix/go-smpp/smpp/pdu"

// Packet is one PDU (SMPP 3.4 §3.2).
type Packet struct {
	ID       pdu.ID
	Status   pdu.Status // of a response; 0 in requests
	Sequence uint32
	Body     Body // by ID; nil where the PDU has no body, and in a response that leaves it out
	TLVs     TLVs
}

// responseBit tells responses from requests (SMPP 3.4 §5.1.2.1).
const responseBit pdu.ID = 1 << 31

// ResponseTo is the command_id of a request's response.
func ResponseTo(id pdu.ID) pdu.ID { return id | responseBit }

// IsResponse tells whether it answers a request; generic_nack does too.
func (p *Packet) IsResponse() bool { return p.ID&responseBit != 0 }

// Body is the mandatory parameters of a PDU: a pointer to one of the structs of
// this file. PDUs without any (unbind, enquire_link, generic_nack, and the
// responses to cancel_sm and replace_sm) have none.
type Body interface{ id() pdu.ID }

// Address is an address with its type of number and numbering plan (SMPP 3.4
// §5.2.5, §5.2.6): at most 20 octets, in data_sm and alert_notification 64.
type Address struct {
	TON, NPI uint8
	Number   string
}

// Bind asks for a session (SMPP 3.4 §4.1): Mode says which. SystemID has at
// most 15 octets, Password MaxPassword, SystemType 12, the range 40.
type Bind struct {
	Mode                           pdu.ID // BindReceiverID, BindTransmitterID, BindTransceiverID
	SystemID, Password, SystemType string
	InterfaceVersion               uint8   // 0x34 is 3.4
	AddressRange                   Address // Number is the range
}

// BindResp answers a bind.
type BindResp struct {
	Mode     pdu.ID // BindReceiverRespID, BindTransmitterRespID, BindTransceiverRespID
	SystemID string
}

// Outbind asks an ESME to bind (SMPP 3.4 §4.1.7). It has no response.
type Outbind struct{ SystemID, Password string }

// Alert is alert_notification (SMPP 3.4 §4.12). It has no response.
type Alert struct{ Source, ESME Address }

// Short is submit_sm, deliver_sm or data_sm (SMPP 3.4 §4.4, §4.6, §4.7).
// data_sm has neither the fields that follow DataCoding nor Text.
type Short struct {
	Of                                 pdu.ID // SubmitSMID, DeliverSMID, DataSMID
	ServiceType                        string // at most 5 octets
	Source, Destination                Address
	ESMClass                           uint8
	RegisteredDelivery                 uint8
	DataCoding                         uint8
	ProtocolID, Priority               uint8
	ScheduleTime, ValidityPeriod       string // empty or 16 octets (SMPP 3.4 §7.1.1)
	ReplaceIfPresent, DefaultMessageID uint8
	Text                               []byte // short_message, at most 254 octets; message_payload is among the TLVs
}

// ShortResp answers it: with the name of the message, at most 64 octets.
type ShortResp struct {
	Of        pdu.ID // SubmitSMRespID, DeliverSMRespID, DataSMRespID
	MessageID string
}

// Multi is submit_multi (SMPP 3.4 §4.5), to at most 254 destinations and lists
// together. Of and Destination of its Short are not used.
type Multi struct {
	Short
	Destinations []Address
	Lists        []string // names of distribution lists, at most 20 octets each
}

// MultiResp answers it.
type MultiResp struct {
	MessageID string
	Failed    []Failed // at most 255
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

func (b *Bind) id() pdu.ID      { return b.Mode }
func (b *BindResp) id() pdu.ID  { return b.Mode }
func (*Outbind) id() pdu.ID     { return pdu.OutbindID }
func (*Alert) id() pdu.ID       { return pdu.AlertNotificationID }
func (b *Short) id() pdu.ID     { return b.Of }
func (b *ShortResp) id() pdu.ID { return b.Of }
func (*Multi) id() pdu.ID       { return pdu.SubmitMultiID }
func (*MultiResp) id() pdu.ID   { return pdu.SubmitMultiRespID }
func (*Query) id() pdu.ID       { return pdu.QuerySMID }
func (*QueryResp) id() pdu.ID   { return pdu.QuerySMRespID }
func (*Cancel) id() pdu.ID      { return pdu.CancelSMID }
func (*Replace) id() pdu.ID     { return pdu.ReplaceSMID }

// Message states of query_sm_resp and the TLV message_state (SMPP 3.4 §5.2.28;
// the first and the last are of SMPP 5.0 §4.7.15).
const (
	StateScheduled     uint8 = 0
	StateEnroute       uint8 = 1
	StateDelivered     uint8 = 2
	StateExpired       uint8 = 3
	StateDeleted       uint8 = 4
	StateUndeliverable uint8 = 5
	StateAccepted      uint8 = 6
	StateUnknown       uint8 = 7
	StateRejected      uint8 = 8
	StateSkipped       uint8 = 9
)
