package wire

import "github.com/fiorix/go-smpp/smpp/pdu"

// kind is a kind of PDU: an index of known.
type kind uint8

// unknownKind is what we don't know.
const unknownKind kind = 0

// known are the PDUs that we know, and how their mandatory parameters are laid
// out; nil: they have none.
var known = [...]struct {
	id     pdu.ID
	name   string
	layout *layout
}{
	unknownKind: {0, "unknown", nil},

	{pdu.GenericNACKID, "generic_nack", nil},
	{pdu.BindReceiverID, "bind_receiver", bindLayout},
	{pdu.BindReceiverRespID, "bind_receiver_resp", bindRespLayout},
	{pdu.BindTransmitterID, "bind_transmitter", bindLayout},
	{pdu.BindTransmitterRespID, "bind_transmitter_resp", bindRespLayout},
	{pdu.BindTransceiverID, "bind_transceiver", bindLayout},
	{pdu.BindTransceiverRespID, "bind_transceiver_resp", bindRespLayout},
	{pdu.OutbindID, "outbind", outbindLayout},
	{pdu.UnbindID, "unbind", nil},
	{pdu.UnbindRespID, "unbind_resp", nil},
	{pdu.SubmitSMID, "submit_sm", shortLayout},
	{pdu.SubmitSMRespID, "submit_sm_resp", shortRespLayout},
	{pdu.SubmitMultiID, "submit_multi", multiLayout},
	{pdu.SubmitMultiRespID, "submit_multi_resp", multiRespLayout},
	{pdu.DeliverSMID, "deliver_sm", shortLayout},
	{pdu.DeliverSMRespID, "deliver_sm_resp", shortRespLayout},
	{pdu.DataSMID, "data_sm", dataLayout},
	{pdu.DataSMRespID, "data_sm_resp", shortRespLayout},
	{pdu.QuerySMID, "query_sm", queryLayout},
	{pdu.QuerySMRespID, "query_sm_resp", queryRespLayout},
	{pdu.CancelSMID, "cancel_sm", cancelLayout},
	{pdu.CancelSMRespID, "cancel_sm_resp", nil},
	{pdu.ReplaceSMID, "replace_sm", replaceLayout},
	{pdu.ReplaceSMRespID, "replace_sm_resp", nil},
	{pdu.EnquireLinkID, "enquire_link", nil},
	{pdu.EnquireLinkRespID, "enquire_link_resp", nil},
	{pdu.AlertNotificationID, "alert_notification", alertLayout},
}

// maxID is the largest command_id that we know, without the bit of responses.
const maxID = pdu.DataSMID

// kindByID finds a kind by the bit of responses and the rest of the command_id.
var kindByID = func() (table [2][maxID + 1]kind) {
	for k := unknownKind + 1; int(k) < len(known); k++ {
		id := known[k].id
		table[id>>31][id&^responseBit] = k
	}
	return table
}()

func kindOf(id pdu.ID) kind {
	if rest := id &^ responseBit; rest <= maxID {
		return kindByID[id>>31][rest]
	}
	return unknownKind
}

// IDs lists every command_id that this package knows.
func IDs() []pdu.ID {
	ids := make([]pdu.ID, 0, len(known)-1)
	for _, k := range known[unknownKind+1:] {
		ids = append(ids, k.id)
	}
	return ids
}

// Name is how the specification writes a command_id: "submit_sm_resp"; of one
// that it doesn't have, "unknown".
func Name(id pdu.ID) string { return known[kindOf(id)].name }
