package joining

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// key is what the parts of one message have in common. See plugin.Part.
type key struct {
	account         string
	from, recipient message.Address
	reference       uint16
	total           uint8
}

func keyOf(a *plugin.Arrival) key {
	return key{account: a.Account.ID, from: a.Message.From, recipient: a.Message.Recipient, reference: a.Part.Reference, total: a.Part.Total}
}

// clone copies the names: they may be pieces of a PDU, which would stay in memory
// for as long as the set does.
func (k key) clone() key {
	for _, name := range [...]*string{&k.account, &k.from.User, &k.from.Host, &k.recipient.User, &k.recipient.Host} {
		*name = strings.Clone(*name)
	}
	return k
}

// digest names a part among all submissions, by what it says.
func (k *key) digest(number uint8, contentType string, body []byte) spool.Digest {
	b := make([]byte, 0, 128+len(body))
	b = append(b, "\x00part"...)
	b = binary.BigEndian.AppendUint16(b, k.reference)
	b = append(b, k.total, number)
	for _, name := range [...]string{k.account, k.from.User, k.from.Host, k.recipient.User, k.recipient.Host, contentType} {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	return spool.DigestKey(string(append(b, body...)))
}

// Set is a message of which parts are here. While somebody decides upon it the
// parts that it had then stay as they are.
type Set struct {
	key    key
	id     message.ID
	public string
	// first is the part that came first, without its body: the message is as it says.
	first plugin.Arrival
	began time.Time
	until time.Time // how long the other parts are awaited

	parts  []*part // by their numbers; nil: not here
	have   int     // of them
	octets int     // of their bodies
	closed bool    // gets no more

	// Reserved is for who decides upon it: a reservation was asked for.
	Reserved bool

	atWork bool
	taken  []*part // those that are being decided upon, in order
	last   *part   // the one that has completed it; nil: its time is over. It isn't on disk
	ended  []spool.Seen

	tries int       // for which it was refused for now, once its time was over
	next  time.Time // when it is due, while it rests
}

// part is one of the parts.
type part struct {
	number      uint8
	contentType string
	body        []byte
	received    time.Time
	report      message.Report
	onDisk      bool
	told        []Told // who waits for what becomes of it
}

func newPart(now time.Time, a *plugin.Arrival, told ...Told) *part {
	m := a.Message
	return &part{number: a.Part.Number, contentType: m.ContentType, body: bytes.Clone(m.Body), received: now, report: m.Report, told: told}
}

// same tells whether a message is this part once more.
func (p *part) same(m *message.Message) bool {
	return p.contentType == m.ContentType && bytes.Equal(p.body, m.Body)
}

func newSet(now time.Time, k key, a *plugin.Arrival) *Set {
	envelope := *a.Message
	envelope.Body = nil
	first := *a
	first.Message = &envelope
	return &Set{
		key: k.clone(), first: first, began: now, until: now.Add(a.Part.Wait), parts: make([]*part, k.total),
	}
}

func (t *Set) answer() plugin.Answer { return plugin.Answer{ID: t.id, PublicID: t.public} }

// repeat answers a part that has come once more.
func (t *Set) repeat(p *part, told Told) (tell func()) {
	if p.onDisk {
		return told.what(t.answer(), nil)
	}
	p.told = append(p.told, told)
	return nil
}

// tell tells those who wait for a part.
func (t *Set) tell(told []Told, err error) {
	for _, told := range told {
		told(t.answer(), err)
	}
}

// row is a part as it is on disk.
func (t *Set) row(p *part) spool.PartRow {
	m, numbers := *t.first.Message, *t.first.Part
	m.ID, m.PublicID = t.id, t.public
	m.ContentType, m.Body, m.Received, m.Report = p.contentType, p.body, p.received, p.report
	numbers.Number = p.number
	a := t.first
	a.Message, a.Part = &m, &numbers
	return spool.PartRow{Arrival: a, Began: t.began, Until: t.until}
}

// Arrival is the joined message, with who brought it; Message.Missing says how
// many parts aren't here. It was received when the last of those came that are, and
// its sender is told what is wanted with any.
func (t *Set) Arrival() plugin.Arrival {
	m := *t.first.Message
	m.ID, m.PublicID = t.id, t.public
	m.Missing = len(t.parts) - len(t.taken)
	m.Body = join(m.ContentType, t.taken, len(t.parts))
	for _, p := range t.taken {
		m.Received = later(m.Received, p.received)
		m.Report |= p.report
	}
	a := t.first
	a.Message, a.Part, a.Key = &m, nil, ""
	return a
}

// gap stands for parts of a text that aren't here.
const gap = "[…]"

// join puts bodies together in the order of their numbers. A text gets a gap
// wherever parts are missing, and is mended: characters may have been cut in two.
func join(contentType string, parts []*part, total int) []byte {
	isText := strings.HasPrefix(content.MediaType(contentType), "text/")
	var body []byte
	last := 0
	for _, p := range parts {
		if isText && int(p.number) > last+1 {
			body = append(body, gap...)
		}
		body = append(body, p.body...)
		last = int(p.number)
	}
	if !isText {
		return body
	}
	if last < total {
		body = append(body, gap...)
	}
	return content.Mend(body)
}
