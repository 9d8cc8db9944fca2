package wire

import (
	"fmt"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// Status codes (SMPP 3.4 §5.1.3), by their names without "ESME_".
const (
	ROK              pdu.Status = 0x00
	RInvMsgLen       pdu.Status = 0x01
	RInvCmdLen       pdu.Status = 0x02
	RInvCmdID        pdu.Status = 0x03
	RInvBndSts       pdu.Status = 0x04
	RAlyBnd          pdu.Status = 0x05
	RInvPrtFlg       pdu.Status = 0x06
	RInvRegDlvFlg    pdu.Status = 0x07
	RSysErr          pdu.Status = 0x08
	RInvSrcAdr       pdu.Status = 0x0A
	RInvDstAdr       pdu.Status = 0x0B
	RInvMsgID        pdu.Status = 0x0C
	RBindFail        pdu.Status = 0x0D
	RInvPaswd        pdu.Status = 0x0E
	RInvSysID        pdu.Status = 0x0F
	RCancelFail      pdu.Status = 0x11
	RReplaceFail     pdu.Status = 0x13
	RMsgQFul         pdu.Status = 0x14
	RInvSerTyp       pdu.Status = 0x15
	RInvNumDests     pdu.Status = 0x33
	RInvDLName       pdu.Status = 0x34
	RInvDestFlag     pdu.Status = 0x40
	RInvSubRep       pdu.Status = 0x42
	RInvEsmClass     pdu.Status = 0x43
	RCntSubDL        pdu.Status = 0x44
	RSubmitFail      pdu.Status = 0x45
	RInvSrcTON       pdu.Status = 0x48
	RInvSrcNPI       pdu.Status = 0x49
	RInvDstTON       pdu.Status = 0x50
	RInvDstNPI       pdu.Status = 0x51
	RInvSysTyp       pdu.Status = 0x53
	RInvRepFlag      pdu.Status = 0x54
	RInvNumMsgs      pdu.Status = 0x55
	RThrottled       pdu.Status = 0x58
	RInvSched        pdu.Status = 0x61
	RInvExpiry       pdu.Status = 0x62
	RInvDftMsgID     pdu.Status = 0x63
	RxTAppn          pdu.Status = 0x64
	RxPAppn          pdu.Status = 0x65
	RxRAppn          pdu.Status = 0x66
	RQueryFail       pdu.Status = 0x67
	RInvOptParStream pdu.Status = 0xC0
	ROptParNotAllwd  pdu.Status = 0xC1
	RInvParLen       pdu.Status = 0xC2
	RMissingOptParam pdu.Status = 0xC3
	RInvOptParamVal  pdu.Status = 0xC4
	RDeliveryFailure pdu.Status = 0xFE
	RUnknownErr      pdu.Status = 0xFF
)

// Status codes that SMPP 5.0 adds (§4.7.6), without those of broadcasting.
const (
	RSerTypUnauth      pdu.Status = 0x100
	RProhibited        pdu.Status = 0x101
	RSerTypUnavail     pdu.Status = 0x102
	RSerTypDenied      pdu.Status = 0x103
	RInvDCS            pdu.Status = 0x104
	RInvSrcAddrSubunit pdu.Status = 0x105
	RInvDstAddrSubunit pdu.Status = 0x106
)

var statusNames = map[pdu.Status]string{
	ROK: "ROK", RInvMsgLen: "RINVMSGLEN", RInvCmdLen: "RINVCMDLEN", RInvCmdID: "RINVCMDID",
	RInvBndSts: "RINVBNDSTS", RAlyBnd: "RALYBND", RInvPrtFlg: "RINVPRTFLG",
	RInvRegDlvFlg: "RINVREGDLVFLG", RSysErr: "RSYSERR", RInvSrcAdr: "RINVSRCADR",
	RInvDstAdr: "RINVDSTADR", RInvMsgID: "RINVMSGID", RBindFail: "RBINDFAIL",
	RInvPaswd: "RINVPASWD", RInvSysID: "RINVSYSID", RCancelFail: "RCANCELFAIL",
	RReplaceFail: "RREPLACEFAIL", RMsgQFul: "RMSGQFUL", RInvSerTyp: "RINVSERTYP",
	RInvNumDests: "RINVNUMDESTS", RInvDLName: "RINVDLNAME", RInvDestFlag: "RINVDESTFLAG",
	RInvSubRep: "RINVSUBREP", RInvEsmClass: "RINVESMCLASS", RCntSubDL: "RCNTSUBDL",
	RSubmitFail: "RSUBMITFAIL", RInvSrcTON: "RINVSRCTON", RInvSrcNPI: "RINVSRCNPI",
	RInvDstTON: "RINVDSTTON", RInvDstNPI: "RINVDSTNPI", RInvSysTyp: "RINVSYSTYP",
	RInvRepFlag: "RINVREPFLAG", RInvNumMsgs: "RINVNUMMSGS", RThrottled: "RTHROTTLED",
	RInvSched: "RINVSCHED", RInvExpiry: "RINVEXPIRY", RInvDftMsgID: "RINVDFTMSGID",
	RxTAppn: "RX_T_APPN", RxPAppn: "RX_P_APPN", RxRAppn: "RX_R_APPN", RQueryFail: "RQUERYFAIL",
	RInvOptParStream: "RINVOPTPARSTREAM", ROptParNotAllwd: "ROPTPARNOTALLWD",
	RInvParLen: "RINVPARLEN", RMissingOptParam: "RMISSINGOPTPARAM",
	RInvOptParamVal: "RINVOPTPARAMVAL", RDeliveryFailure: "RDELIVERYFAILURE",
	RUnknownErr: "RUNKNOWNERR", RSerTypUnauth: "RSERTYPUNAUTH", RProhibited: "RPROHIBITED",
	RSerTypUnavail: "RSERTYPUNAVAIL", RSerTypDenied: "RSERTYPDENIED", RInvDCS: "RINVDCS",
	RInvSrcAddrSubunit: "RINVSRCADDRSUBUNIT", RInvDstAddrSubunit: "RINVDSTADDRSUBUNIT",
}

// StatusName is how the specification writes a status: "ESME_RTHROTTLED"; of
// one that it doesn't have, "0x000004d2".
func StatusName(s pdu.Status) string {
	if name, ok := statusNames[s]; ok {
		return "ESME_" + name
	}
	return fmt.Sprintf("0x%08x", uint32(s))
}

// Error is why a PDU can't be read or written.
type Error struct {
	Status pdu.Status // what answers a request that has this fault
	Reason string     // what is wrong, without what the peer wrote
}

func (e *Error) Error() string { return e.Reason + " (" + StatusName(e.Status) + ")" }
