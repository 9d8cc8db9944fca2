package content

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// Disposition is what an IMDN tells of (RFC 5438 §5).
type Disposition uint8

// The dispositions.
const (
	Delivery   Disposition = iota // whether the recipient has the message
	Display                       // whether it was shown to the recipient
	Processing                    // what somebody on the way has done with it
)

// What an IMDN can say (RFC 5438 §5). That it is forbidden isn't said of the
// message: its sender isn't to be told what has become of it.
const (
	StatusDelivered = "delivered"
	StatusFailed    = "failed"
	StatusDisplayed = "displayed"
	StatusProcessed = "processed"
	StatusStored    = "stored"
	StatusForbidden = "forbidden"
	StatusError     = "error" // nobody knows
)

// IMDN says what has become of a message (RFC 5438 §11).
type IMDN struct {
	MessageID string    // of the message
	DateTime  time.Time // of the message; zero: it isn't said, or can't be read
	// Who has or hasn't got it, and to whom it was sent before it was redirected;
	// may be empty.
	RecipientURI, OriginalRecipientURI string
	Kind                               Disposition
	Status                             string
}

// namespaceXML is the name space of an IMDN's elements (RFC 5438 §11.1.9).
const namespaceXML = "urn:ietf:params:xml:ns:imdn"

var (
	errDocumentType = errors.New("there may be no document type")
	errNoIMDN       = errors.New("no message, or nothing that has become of it")
)

// imdnXML is the part of RFC 5438 §11.1.9's schema that means something to us.
// Extensions are passed over.
type imdnXML struct {
	XMLName              xml.Name     `xml:"imdn"`
	MessageID            string       `xml:"message-id"`
	DateTime             string       `xml:"datetime"`
	RecipientURI         string       `xml:"recipient-uri"`
	OriginalRecipientURI string       `xml:"original-recipient-uri"`
	Delivery             []elementXML `xml:"delivery-notification>status"`
	Display              []elementXML `xml:"display-notification>status"`
	Processing           []elementXML `xml:"processing-notification>status"`
}

// elementXML is an element of which only the names within it are of interest.
type elementXML struct {
	Within []struct{ XMLName xml.Name } `xml:",any"`
}

// ParseIMDN reads a message/imdn+xml of at most 8,192 octets. There may be no
// document type, so there are no entities but XML's own.
func ParseIMDN(body []byte) (*IMDN, error) {
	if len(body) > maxNotice {
		return nil, ErrTooLarge
	}
	if bytes.Contains(body, []byte("<!DOCTYPE")) {
		return nil, errDocumentType
	}
	var x imdnXML
	if err := xml.Unmarshal(body, &x); err != nil {
		return nil, fmt.Errorf("IMDN: %w", err)
	}
	m := &IMDN{
		MessageID:            strings.TrimSpace(x.MessageID),
		DateTime:             parseTime(strings.TrimSpace(x.DateTime)),
		RecipientURI:         strings.TrimSpace(x.RecipientURI),
		OriginalRecipientURI: strings.TrimSpace(x.OriginalRecipientURI),
	}
	for kind, elements := range [...][]elementXML{Delivery: x.Delivery, Display: x.Display, Processing: x.Processing} {
		if status := statusIn(elements); status != "" && m.Status == "" {
			m.Kind, m.Status = Disposition(kind), status
		}
	}
	if m.MessageID == "" || m.Status == "" {
		return nil, errNoIMDN
	}
	return m, nil
}

// statusIn returns the name of the first element that isn't an extension.
func statusIn(elements []elementXML) string {
	for _, e := range elements {
		for _, within := range e.Within {
			if within.XMLName.Space == namespaceXML || within.XMLName.Space == "" {
				return within.XMLName.Local
			}
		}
	}
	return ""
}

// Append writes the message/imdn+xml. Whatever its fields hold, what comes out is
// one: a status that none of the constants names is written as StatusError.
func (m *IMDN) Append(b []byte) []byte {
	w := bytes.NewBuffer(b)
	w.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\r\n" + `<imdn xmlns="` + namespaceXML + `">` + crlf)
	writeElement(w, "message-id", m.MessageID)
	if !m.DateTime.IsZero() {
		writeElement(w, "datetime", m.DateTime.Format(time.RFC3339))
	}
	writeElement(w, "recipient-uri", m.RecipientURI)
	writeElement(w, "original-recipient-uri", m.OriginalRecipientURI)
	kind, status := kindName(m.Kind), m.Status
	if !isStatus(status) {
		status = StatusError
	}
	fmt.Fprintf(w, "  <%s><status><%s/></status></%s>\r\n</imdn>\r\n", kind, status, kind)
	return w.Bytes()
}

func kindName(d Disposition) string {
	switch d {
	case Display:
		return "display-notification"
	case Processing:
		return "processing-notification"
	}
	return "delivery-notification"
}

func isStatus(s string) bool {
	switch s {
	case StatusDelivered, StatusFailed, StatusDisplayed, StatusProcessed, StatusStored, StatusForbidden, StatusError:
		return true
	}
	return false
}

// writeElement leaves out what is empty.
func writeElement(w *bytes.Buffer, name, value string) {
	if value == "" {
		return
	}
	w.WriteString("  <" + name + ">")
	_ = xml.EscapeText(w, []byte(value)) // a buffer takes everything
	w.WriteString("</" + name + ">\r\n")
}

// messageID is the name that IMDNs call a message by. Some versions of liblinphone
// write it without a name space.
func (c *CPIM) messageID() string {
	if id := c.Get(NamespaceIMDN, "Message-ID"); id != "" {
		return id
	}
	return c.Get("", "Message-ID")
}

// wants reads what the sender asks for (RFC 5438 §6.2). Of a message without a name
// nothing can be told.
func (c *CPIM) wants() (r message.Report) {
	if c.messageID() == "" {
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
