package wire

import (
	"maps"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdufield"
)

// Names that pdufield doesn't have.
const (
	esmeAddrTON pdufield.Name = "esme_addr_ton"
	esmeAddrNPI pdufield.Name = "esme_addr_npi"
	esmeAddr    pdufield.Name = "esme_addr"
)

// MaxPassword is how long a password may be, in octets. SMPP has room for 8 (3.4
// §5.2.2); many peers have longer ones.
const MaxPassword = 64

// The lengths of SMPP 3.4 §5.2, without the NUL. data_sm and alert_notification
// allow longer addresses than others (§4.7.1, §4.12.1).
var (
	systemID         = limit{pdufield.SystemID, 15, RInvSysID}
	password         = limit{pdufield.Password, MaxPassword, RInvPaswd}
	systemType       = limit{pdufield.SystemType, 12, RInvSysTyp}
	addressRange     = limit{pdufield.AddressRange, 40, RBindFail}
	serviceType      = limit{pdufield.ServiceType, 5, RInvSerTyp}
	source           = limit{pdufield.SourceAddr, 20, RInvSrcAdr}
	destination      = limit{pdufield.DestinationAddr, 20, RInvDstAdr}
	longSource       = limit{pdufield.SourceAddr, 64, RInvSrcAdr}
	longDestination  = limit{pdufield.DestinationAddr, 64, RInvDstAdr}
	longESME         = limit{esmeAddr, 64, RInvDstAdr}
	scheduleTime     = limit{pdufield.ScheduleDeliveryTime, 16, RInvSched}
	validityPeriod   = limit{pdufield.ValidityPeriod, 16, RInvExpiry}
	finalDate        = limit{pdufield.FinalDate, 16, RInvExpiry}
	messageID        = limit{pdufield.MessageID, 64, RInvMsgID}
	distributionList = limit{"dl_name", 20, RInvDLName}
)

var bindFields = map[pdufield.Name]field[Bind]{
	pdufield.SystemID:         text(systemID, func(b *Bind) *string { return &b.SystemID }),
	pdufield.Password:         text(password, func(b *Bind) *string { return &b.Password }),
	pdufield.SystemType:       text(systemType, func(b *Bind) *string { return &b.SystemType }),
	pdufield.InterfaceVersion: octet(func(b *Bind) *uint8 { return &b.InterfaceVersion }),
	pdufield.AddrTON:          octet(func(b *Bind) *uint8 { return &b.AddressRange.TON }),
	pdufield.AddrNPI:          octet(func(b *Bind) *uint8 { return &b.AddressRange.NPI }),
	pdufield.AddressRange:     text(addressRange, func(b *Bind) *string { return &b.AddressRange.Number }),
}

var bindRespFields = map[pdufield.Name]field[BindResp]{
	pdufield.SystemID: text(systemID, func(b *BindResp) *string { return &b.SystemID }),
}

var outbindFields = map[pdufield.Name]field[Outbind]{
	pdufield.SystemID: text(systemID, func(b *Outbind) *string { return &b.SystemID }),
	pdufield.Password: text(password, func(b *Outbind) *string { return &b.Password }),
}

var alertFields = map[pdufield.Name]field[Alert]{
	pdufield.SourceAddrTON: octet(func(b *Alert) *uint8 { return &b.Source.TON }),
	pdufield.SourceAddrNPI: octet(func(b *Alert) *uint8 { return &b.Source.NPI }),
	pdufield.SourceAddr:    text(longSource, func(b *Alert) *string { return &b.Source.Number }),
	esmeAddrTON:            octet(func(b *Alert) *uint8 { return &b.ESME.TON }),
	esmeAddrNPI:            octet(func(b *Alert) *uint8 { return &b.ESME.NPI }),
	esmeAddr:               text(longESME, func(b *Alert) *string { return &b.ESME.Number }),
}

var shortFields = map[pdufield.Name]field[Short]{
	pdufield.ServiceType:          text(serviceType, func(b *Short) *string { return &b.ServiceType }),
	pdufield.SourceAddrTON:        octet(func(b *Short) *uint8 { return &b.Source.TON }),
	pdufield.SourceAddrNPI:        octet(func(b *Short) *uint8 { return &b.Source.NPI }),
	pdufield.SourceAddr:           text(source, func(b *Short) *string { return &b.Source.Number }),
	pdufield.DestAddrTON:          octet(func(b *Short) *uint8 { return &b.Destination.TON }),
	pdufield.DestAddrNPI:          octet(func(b *Short) *uint8 { return &b.Destination.NPI }),
	pdufield.DestinationAddr:      text(destination, func(b *Short) *string { return &b.Destination.Number }),
	pdufield.ESMClass:             octet(func(b *Short) *uint8 { return &b.ESMClass }),
	pdufield.ProtocolID:           octet(func(b *Short) *uint8 { return &b.ProtocolID }),
	pdufield.PriorityFlag:         octet(func(b *Short) *uint8 { return &b.Priority }),
	pdufield.ScheduleDeliveryTime: text(scheduleTime, func(b *Short) *string { return &b.ScheduleTime }),
	pdufield.ValidityPeriod:       text(validityPeriod, func(b *Short) *string { return &b.ValidityPeriod }),
	pdufield.RegisteredDelivery:   octet(func(b *Short) *uint8 { return &b.RegisteredDelivery }),
	pdufield.ReplaceIfPresentFlag: octet(func(b *Short) *uint8 { return &b.ReplaceIfPresent }),
	pdufield.DataCoding:           octet(func(b *Short) *uint8 { return &b.DataCoding }),
	pdufield.SMDefaultMsgID:       octet(func(b *Short) *uint8 { return &b.DefaultMessageID }),
	pdufield.ShortMessage:         shortMessage(func(b *Short) *[]byte { return &b.Text }),
}

// dataFields are those of data_sm.
var dataFields = with(shortFields, map[pdufield.Name]field[Short]{
	pdufield.SourceAddr:      text(longSource, func(b *Short) *string { return &b.Source.Number }),
	pdufield.DestinationAddr: text(longDestination, func(b *Short) *string { return &b.Destination.Number }),
})

var shortRespFields = map[pdufield.Name]field[ShortResp]{
	pdufield.MessageID: text(messageID, func(b *ShortResp) *string { return &b.MessageID }),
}

var multiFields = with(ofMulti(shortFields), map[pdufield.Name]field[Multi]{
	pdufield.DestinationList: {read: readDestinations, write: appendDestinations},
})

var multiRespFields = map[pdufield.Name]field[MultiResp]{
	pdufield.MessageID:    text(messageID, func(b *MultiResp) *string { return &b.MessageID }),
	pdufield.UnsuccessSme: {read: readFailed, write: appendFailed},
}

var queryFields = map[pdufield.Name]field[Query]{
	pdufield.MessageID:     text(messageID, func(b *Query) *string { return &b.MessageID }),
	pdufield.SourceAddrTON: octet(func(b *Query) *uint8 { return &b.Source.TON }),
	pdufield.SourceAddrNPI: octet(func(b *Query) *uint8 { return &b.Source.NPI }),
	pdufield.SourceAddr:    text(source, func(b *Query) *string { return &b.Source.Number }),
}

var queryRespFields = map[pdufield.Name]field[QueryResp]{
	pdufield.MessageID:    text(messageID, func(b *QueryResp) *string { return &b.MessageID }),
	pdufield.FinalDate:    text(finalDate, func(b *QueryResp) *string { return &b.FinalDate }),
	pdufield.MessageState: octet(func(b *QueryResp) *uint8 { return &b.State }),
	pdufield.ErrorCode:    octet(func(b *QueryResp) *uint8 { return &b.ErrorCode }),
}

var cancelFields = map[pdufield.Name]field[Cancel]{
	pdufield.ServiceType:     text(serviceType, func(b *Cancel) *string { return &b.ServiceType }),
	pdufield.MessageID:       text(messageID, func(b *Cancel) *string { return &b.MessageID }),
	pdufield.SourceAddrTON:   octet(func(b *Cancel) *uint8 { return &b.Source.TON }),
	pdufield.SourceAddrNPI:   octet(func(b *Cancel) *uint8 { return &b.Source.NPI }),
	pdufield.SourceAddr:      text(source, func(b *Cancel) *string { return &b.Source.Number }),
	pdufield.DestAddrTON:     octet(func(b *Cancel) *uint8 { return &b.Destination.TON }),
	pdufield.DestAddrNPI:     octet(func(b *Cancel) *uint8 { return &b.Destination.NPI }),
	pdufield.DestinationAddr: text(destination, func(b *Cancel) *string { return &b.Destination.Number }),
}

var replaceFields = map[pdufield.Name]field[Replace]{
	pdufield.MessageID:            text(messageID, func(b *Replace) *string { return &b.MessageID }),
	pdufield.SourceAddrTON:        octet(func(b *Replace) *uint8 { return &b.Source.TON }),
	pdufield.SourceAddrNPI:        octet(func(b *Replace) *uint8 { return &b.Source.NPI }),
	pdufield.SourceAddr:           text(source, func(b *Replace) *string { return &b.Source.Number }),
	pdufield.ScheduleDeliveryTime: text(scheduleTime, func(b *Replace) *string { return &b.ScheduleTime }),
	pdufield.ValidityPeriod:       text(validityPeriod, func(b *Replace) *string { return &b.ValidityPeriod }),
	pdufield.RegisteredDelivery:   octet(func(b *Replace) *uint8 { return &b.RegisteredDelivery }),
	pdufield.SMDefaultMsgID:       octet(func(b *Replace) *uint8 { return &b.DefaultMessageID }),
	pdufield.ShortMessage:         shortMessage(func(b *Replace) *[]byte { return &b.Text }),
}

// with returns a table with some fields added or exchanged.
func with[T any](table, changes map[pdufield.Name]field[T]) map[pdufield.Name]field[T] {
	table = maps.Clone(table)
	maps.Copy(table, changes)
	return table
}

// ofMulti makes the fields of Short those of Multi.
func ofMulti(table map[pdufield.Name]field[Short]) map[pdufield.Name]field[Multi] {
	fields := make(map[pdufield.Name]field[Multi], len(table))
	for name, f := range table {
		fields[name] = field[Multi]{
			read:  func(m *Multi, b []byte) ([]byte, error) { return f.read(&m.Short, b) },
			write: func(m *Multi, b []byte) ([]byte, error) { return f.write(&m.Short, b) },
		}
	}
	return fields
}

// The mandatory parameters of each PDU. go-smpp's lists are used where they are
// right: its deliver_sm has a UDH of its own before short_message, and the
// others it doesn't have.
var (
	bindLayout = newLayout(func(id pdu.ID) *Bind { return &Bind{Mode: id} },
		bindFields, pdu.NewBindTransceiver().FieldList())
	bindRespLayout = newLayout(func(id pdu.ID) *BindResp { return &BindResp{Mode: id} },
		bindRespFields, pdu.NewBindTransceiverResp().FieldList())
	outbindLayout = newLayout(func(pdu.ID) *Outbind { return &Outbind{} },
		outbindFields, pdufield.List{pdufield.SystemID, pdufield.Password})
	alertLayout = newLayout(func(pdu.ID) *Alert { return &Alert{} },
		alertFields, pdufield.List{
			pdufield.SourceAddrTON, pdufield.SourceAddrNPI, pdufield.SourceAddr,
			esmeAddrTON, esmeAddrNPI, esmeAddr,
		})
	shortLayout = newLayout(func(id pdu.ID) *Short { return &Short{Of: id} },
		shortFields, pdu.NewSubmitSM(nil).FieldList())
	dataLayout = newLayout(func(id pdu.ID) *Short { return &Short{Of: id} },
		dataFields, pdufield.List{
			pdufield.ServiceType,
			pdufield.SourceAddrTON, pdufield.SourceAddrNPI, pdufield.SourceAddr,
			pdufield.DestAddrTON, pdufield.DestAddrNPI, pdufield.DestinationAddr,
			pdufield.ESMClass, pdufield.RegisteredDelivery, pdufield.DataCoding,
		})
	shortRespLayout = newLayout(func(id pdu.ID) *ShortResp { return &ShortResp{Of: id} },
		shortRespFields, pdu.NewSubmitSMResp().FieldList())
	multiLayout = newLayout(func(pdu.ID) *Multi { return &Multi{} },
		multiFields, pdu.NewSubmitMulti(nil).FieldList())
	multiRespLayout = newLayout(func(pdu.ID) *MultiResp { return &MultiResp{} },
		multiRespFields, pdu.NewSubmitMultiResp().FieldList())
	queryLayout = newLayout(func(pdu.ID) *Query { return &Query{} },
		queryFields, pdu.NewQuerySM().FieldList())
	queryRespLayout = newLayout(func(pdu.ID) *QueryResp { return &QueryResp{} },
		queryRespFields, pdu.NewQuerySMResp().FieldList())
	cancelLayout = newLayout(func(pdu.ID) *Cancel { return &Cancel{} },
		cancelFields, pdufield.List{
			pdufield.ServiceType, pdufield.MessageID,
			pdufield.SourceAddrTON, pdufield.SourceAddrNPI, pdufield.SourceAddr,
			pdufield.DestAddrTON, pdufield.DestAddrNPI, pdufield.DestinationAddr,
		})
	replaceLayout = newLayout(func(pdu.ID) *Replace { return &Replace{} },
		replaceFields, pdufield.List{
			pdufield.MessageID,
			pdufield.SourceAddrTON, pdufield.SourceAddrNPI, pdufield.SourceAddr,
			pdufield.ScheduleDeliveryTime, pdufield.ValidityPeriod, pdufield.RegisteredDelivery,
			pdufield.SMDefaultMsgID, pdufield.SMLength, pdufield.ShortMessage,
		})
)
