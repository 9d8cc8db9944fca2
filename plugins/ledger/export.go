package ledger

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
)

// cdrWriter writes CDRs in one format.
type cdrWriter interface {
	contentType() string
	write(*cdr) error
	// end writes what is still buffered.
	end() error
}

func newCDRWriter(format string, out io.Writer) (cdrWriter, error) {
	switch format {
	case "json":
		return cdrArray{&jsonArray{out: out}}, nil
	case "csv":
		return newCDRTable(out), nil
	}
	return nil, fmt.Errorf("format: %q is unknown: expected csv or json", format)
}

// cdrArray writes a JSON array with one object a line, so that an export of any
// size can be read as it comes.
type cdrArray struct{ out *jsonArray }

func (cdrArray) contentType() string  { return "application/json" }
func (w cdrArray) write(c *cdr) error { return w.out.write(c) }
func (w cdrArray) end() error         { return w.out.end() }

// cdrTable writes CSV (RFC 4180). The columns are named as in JSON.
type cdrTable struct{ out *csv.Writer }

func newCDRTable(out io.Writer) cdrTable {
	w := cdrTable{csv.NewWriter(out)}
	// A failure to write stays with the writer and comes out of end.
	_ = w.out.Write([]string{"id", "payer", "from", "recipient", "destination", "units", "amount", "currency",
		"service", "transport", "received", "settled", "late", "unpaid"})
	return w
}

func (cdrTable) contentType() string { return "text/csv; charset=utf-8" }

func (w cdrTable) write(c *cdr) error {
	return w.out.Write([]string{c.ID.String(), c.Payer, c.From, c.Recipient, c.Destination,
		strconv.Itoa(c.Units), c.Amount.String(), c.Currency, c.Service, c.Transport,
		c.Received.String(), c.Settled.String(), strconv.FormatBool(c.Late), strconv.FormatBool(c.Unpaid)})
}

func (w cdrTable) end() error {
	w.out.Flush()
	return w.out.Error()
}
