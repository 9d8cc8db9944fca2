package content

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Disposition is what an IMDN tells of (RFC 5438 §5).
type Disposition uint8

// The dispositions.
const (
	Delivery   Disposition = iota // whether the recipient has it
	Display                       // whether it was shown
	Processing                    // what somebody on the way has done with it
)

// The names of their elements (RFC 5438 §11.1).
var dispositions = [...]string{Delivery: "delivery-notification", Display: "display-notification", Processing: "processing-notification"}

// What can be the status of an IMDN (RFC 5438 §11.1).
const (
	StatusDelivered = "delivered"
	StatusFailed    = "failed"
	StatusDisplayed = "displayed"
	StatusProcessed = "processed"
	StatusStored    = "stored"
	StatusForbidden = "forbidden"
	StatusError     = "error"
)

// IMDN says what has become of a message (RFC 5438 §11).
type IMDN struct {
	MessageID            string    // of the message that it is about
	DateTime             time.Time // of the message; zero: it isn't said, or can't be read
	RecipientURI         string    // may be empty
	OriginalRecipientURI string    // may be empty
	Subject              string    // of the message; may be empty
	Kind                 Disposition
	Status               string
}

var errIMDN = errors.New("not an IMDN")

// maxElements bounds the elements of an IMDN, maxNesting how deep they stand.
const (
	maxElements = 64
	maxNesting  = 8
)

// ParseIMDN reads the body of a message/imdn+xml of at most 8,192 octets. Elements
// of other name spaces are passed over. There may be no document type: so there
// are no entities but XML's own.
func ParseIMDN(body []byte) (*IMDN, error) {
	if len(body) > maxNotice {
		return nil, errIMDN
	}
	return parseIMDN(xml.NewDecoder(bytes.NewReader(body)))
}

func parseIMDN(d *xml.Decoder) (*IMDN, error) {
	var path []string
	m := &IMDN{}
	found := false
	for elements := 0; elements <= maxElements; {
		token, err := d.Token()
		if err == io.EOF && len(path) == 0 && found && m.MessageID != "" {
			return m, nil
		}
		if err != nil {
			return nil, errIMDN
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, errIMDN
		case xml.StartElement:
			elements++
			path = append(path, t.Name.Local)
			if len(path) > maxNesting || path[0] != "imdn" {
				return nil, errIMDN
			}
			found = m.enter(path) || found
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			m.read(path, t)
		}
	}
	return nil, errIMDN
}

func (m *IMDN) enter(path []string) bool {
	if len(path) != 4 || path[2] != "status" || m.Status != "" {
		return false
	}
	for kind, name := range dispositions {
		if path[1] == name {
			m.Kind, m.Status = Disposition(kind), path[3]
			return true
		}
	}
	return false
}

func (m *IMDN) read(path []string, data []byte) {
	if len(path) != 2 {
		return
	}
	value := strings.TrimSpace(string(data))
	switch path[1] {
	case "message-id":
		m.MessageID += value
	case "datetime":
		m.DateTime, _ = time.Parse(time.RFC3339, value)
	case "recipient-uri":
		m.RecipientURI += value
	case "original-recipient-uri":
		m.OriginalRecipientURI += value
	case "subject":
		m.Subject += value
	}
}

// wants reads imdn.Disposition-Notification (RFC 5438 §6.2). Without a Message-ID
// there is nothing that a notification could be about.
func (c *CPIM) wants() (r message.Report) {
	if c.Get(NamespaceIMDN, "Message-ID") == "" {
		return message.ReportNothing
	}
	for _, h := range c.Headers {
		if h.Space != NamespaceIMDN || h.Name != "Disposition-Notification" {
			continue
		}
		for item := range strings.SplitSeq(h.Value, ",") {
			kind, _, _ := strings.Cut(item, ";")
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "positive-delivery":
				r |= message.ReportDelivery
			case "negative-delivery":
				r |= message.ReportFailure
			}
		}
	}
	return r
}
