package spool

import (
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Sheets say how the engine's tables read. None shows what a message says.
func Sheets() []plugin.Sheet {
	return []plugin.Sheet{
		waitingSheet(), attemptsSheet(), endedSheet(), bindingsSheet(), devicesSheet(), windowsSheet(), partsSheet(),
		{Table: tableOutbox}, {Table: tableSeen}, {Table: tableSecrets}, {Table: tableNames},
	}
}

// columnsOf reads a list of columns: the name, the type and what it is, on a line each.
func columnsOf(list string) (columns []plugin.Column) {
	for line := range strings.Lines(strings.TrimSpace(list)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		kind, doc, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if name != "" {
			columns = append(columns, plugin.Column{Name: name, Type: plugin.ColumnType(kind), Doc: strings.TrimSpace(doc)})
		}
	}
	return columns
}

// text is a text as a column may hold it; an empty one is no value. Most of them
// are what peers sent.
func text(s string) any {
	if s == "" {
		return nil
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// summaryColumns are what messages that wait and those that have ended have in common.
const summaryColumns = `
	id            id     the message
	public_id     text   the id that peers are told
	sender        text   who sent it
	recipient     text   to whom
	content_type  text   of the body, as it came
	size          number octets of the body
	received      moment when it came in
	expires       moment when its life is over
	service       text   the policy that decided on it
	revision      text   of the policies that were in force
	transport     text   through which it came in
	peer          text   who was at the other end
	labels        text   what the policy noted: name=value, separated by spaces
`

func summaryValues(s *Summary, more ...any) []any {
	var labels []string
	for _, key := range sortedKeys(s.Labels) {
		labels = append(labels, key+"="+s.Labels[key])
	}
	return append([]any{
		s.ID, text(s.PublicID), text(s.From.String()), text(s.To.String()), text(s.Type), int64(s.Size),
		moment(s.Received), moment(s.Expiry), text(s.Service), text(s.Revision), text(s.Transport), text(s.Peer),
		text(strings.Join(labels, " ")),
	}, more...)
}

// laterColumns came later than the others, and so are the last ones.
const laterColumns = `
	sent_as             text   the sender that the recipient sees; NULL: the sender
	original_recipient  text   the recipient that it came with; NULL: the recipient
	submitter           text   the account that handed it in; NULL: that isn't known
	missing             number parts of it that never came
`

func laterValues(s *Summary) []any {
	return []any{text(s.SentAs.String()), text(s.OriginalTo.String()), text(s.Account), int64(s.Missing)}
}

// copyColumns came still later.
const copyColumns = `
	device   text  the device that it is a copy for; NULL: it isn't a copy
	copy_of  id    the message that another device has taken
`

func copyValues(s *Summary) []any {
	if s.Device == "" {
		return []any{nil, nil}
	}
	return []any{text(s.Device), s.CopyOf}
}

func waitingSheet() plugin.Sheet {
	columns := columnsOf(summaryColumns + `
	account  text   the recipient's account; NULL: it isn't one of ours
	payer    text   the account that is to pay; NULL: it costs nothing, or is paid
	` + laterColumns + `
	not_before  moment when its sender wants it delivered at the earliest; NULL: at once
	` + copyColumns)
	read := func(row plugin.Change) ([]any, error) {
		e, err := decodeEntry(row.Value)
		if err != nil {
			return nil, err
		}
		payer := ""
		if e.Record != nil {
			payer = e.Record.Payer
		}
		s := e.Summary()
		values := append(summaryValues(&s, text(e.Account), text(payer)), laterValues(&s)...)
		return append(append(values, moment(e.Message.NotBefore)), copyValues(&s)...), nil
	}
	return plugin.Sheet{Table: tableMessages, Name: "waiting", Doc: "a message that is ours and has not ended", Columns: columns, Read: read}
}

// endedSheet is the one with so many rows that it needs indexes; each of them is
// paid for with every message.
func endedSheet() plugin.Sheet {
	columns := columnsOf(summaryColumns + `
	state       text   how it ended: delivered, failed, discarded, or handed-over and never heard of again
	reason      text   why, if it wasn't delivered
	attempts    number how often it was tried
	ended       moment when
	deliveries  text   what each device said, separated by semicolons
	` + laterColumns + copyColumns)
	for i := range columns {
		columns[i].Indexed = slices.Contains([]string{"sender", "recipient"}, columns[i].Name)
	}
	read := func(row plugin.Change) ([]any, error) {
		s, err := decodeSummary(row.Key, row.Value)
		if err != nil {
			return nil, err
		}
		values := summaryValues(&s, text(string(s.State)), text(string(s.Reason)), int64(s.Attempts), moment(s.Ended), deliveriesText(s.Deliveries))
		return append(append(values, laterValues(&s)...), copyValues(&s)...), nil
	}
	return plugin.Sheet{Table: tableHistory, Name: "ended", Doc: "a message that has ended, until its record is forgotten", Columns: columns, Read: read}
}

func attemptsSheet() plugin.Sheet {
	columns := columnsOf(`
	id           id     the message
	attempts     number how often it was tried
	quarantined  text   why it is set aside; NULL: it isn't
	handed_over  flag   the next hop has it and has yet to report
	deliveries   text   what each device said, separated by semicolons
	fallback     flag   the way that its plan names as the fallback is at work
	`)
	read := func(row plugin.Change) ([]any, error) {
		s, err := decodeState(row.Value)
		if err != nil || len(row.Key) != len(message.ID{}) {
			return nil, errCorrupt
		}
		return []any{message.ID(row.Key), int64(s.Attempts), text(string(s.Quarantined)), s.HandedOver, deliveriesText(s.Parts()), s.Fallback}, nil
	}
	const doc = "what a message that has not ended went through; one that wasn't tried yet has no row"
	return plugin.Sheet{Table: tableStates, Name: "attempts", Doc: doc, Columns: columns, Read: read}
}

func bindingsSheet() plugin.Sheet {
	columns := columnsOf(`
	account    text   whose it is
	address    text   the address-of-record
	transport  text   at which it registered
	contact    text   where it can be reached
	flow       text   over which; NULL: any way will do
	device     text   the instance that it named
	q          number its preference, in thousandths
	expires    moment when it does
	window     number how many messages it takes at once; 0: it doesn't say
	push       text   the service that can wake its app (RFC 8599); NULL: none
	asleep     flag   whether it is there only to be woken
	`)
	read := func(row plugin.Change) ([]any, error) {
		b, err := decodeBinding(row.Value)
		if err != nil {
			return nil, err
		}
		return []any{
			text(b.Account), text(b.AOR.String()), text(b.Transport), text(b.Contact), text(b.Flow), text(b.Device),
			int64(b.Q), moment(b.Expires), int64(b.Window),
			text(b.Push.Provider), b.Asleep,
		}, nil
	}
	const doc = "a contact that is registered, or whose app sleeps, until a moment after it expires"
	return plugin.Sheet{Table: tableBindings, Name: "bindings", Doc: doc, Columns: columns, Read: read}
}

func devicesSheet() plugin.Sheet {
	columns := columnsOf(`
	account    text   whose it is
	device     text   the instance that it named
	transport  text   at which it registered
	seen       moment when it did, to a day
	`)
	read := func(row plugin.Change) ([]any, error) {
		d, err := decodeDevice(row.Value)
		if err != nil {
			return nil, err
		}
		return []any{text(d.account), text(d.Name), text(d.Transport), moment(d.seen)}, nil
	}
	const doc = "a device that has registered, until it logs out or hasn't come for 30 days"
	return plugin.Sheet{Table: tableDevices, Name: "devices", Doc: doc, Columns: columns, Read: read}
}

func windowsSheet() plugin.Sheet {
	columns := columnsOf(`
	key    text   the service, the limit, and the values that it counts by
	count  number messages that were accepted in it
	began  moment when the first of them was received
	ends   moment when it is over
	`)
	read := func(row plugin.Change) ([]any, error) {
		w, err := decodeWindow(row.Key, row.Value)
		if err != nil {
			return nil, err
		}
		return []any{text(w.Key), int64(w.Count), moment(w.Began), moment(w.Ends())}, nil
	}
	const doc = "a window of a rate limit, of more than a minute, until a moment after it is over"
	return plugin.Sheet{Table: tableWindows, Name: "windows", Doc: doc, Columns: columns, Read: read}
}

func partsSheet() plugin.Sheet {
	columns := columnsOf(`
	id         id     the message that it is a part of
	public_id  text   the id that peers are told
	account    text   that handed it in
	sender     text   who sent it
	recipient  text   to whom
	reference  number that the sender has given to all parts of the message
	total      number how many there are
	number     number which one this is, from 1
	size       number octets of the body
	received   moment when it came in
	until      moment how long the other parts are awaited
	transport  text   through which it came in
	peer       text   who was at the other end
	`)
	read := func(row plugin.Change) ([]any, error) {
		p, err := decodePart(row.Key, row.Value)
		if err != nil {
			return nil, err
		}
		m, part := p.Arrival.Message, p.Arrival.Part
		return []any{
			m.ID, text(m.PublicID), text(p.Arrival.Account.ID), text(m.From.String()), text(m.Recipient.String()),
			int64(part.Reference), int64(part.Total), int64(part.Number), int64(len(m.Body)),
			moment(m.Received), moment(p.Until), text(m.Transport), text(m.Peer),
		}, nil
	}
	const doc = "a part of a message whose other parts are awaited"
	return plugin.Sheet{Table: tableParts, Name: "parts", Doc: doc, Columns: columns, Read: read}
}

func deliveriesText(parts []DeliverySummary) any {
	texts := make([]string, len(parts))
	for i, d := range parts {
		texts[i] = strings.Join(strings.Fields(d.Transport+" "+d.Device+" "+string(d.State)+" "+string(d.Reason)), " ")
	}
	return text(strings.Join(texts, "; "))
}
