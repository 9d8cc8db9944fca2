package ledger

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

var errRowTooLong = fmt.Errorf("a row of more than %d octets: is it CSV, and each quote closed?", maxImportRow)

// importReader reads CSV row by row, and no row that is too long.
type importReader struct {
	csv  *csv.Reader
	rows *boundedRows
	line int // on which the last row ended
}

func newImportReader(r io.Reader) *importReader {
	rows := &boundedRows{in: skipByteOrderMark(r)}
	in := csv.NewReader(rows)
	in.ReuseRecord = true
	return &importReader{csv: in, rows: rows}
}

// next returns the next row, which is valid until the one after. An error is a
// *csv.ParseError, after which there may be more rows, errRowTooLong, or what
// reading came upon; io.EOF at the end.
func (r *importReader) next() ([]string, error) {
	r.rows.next()
	record, err := r.csv.Read()
	if err == nil {
		last := len(record) - 1
		line, _ := r.csv.FieldPos(last)
		r.line = line + strings.Count(record[last], "\n")
	} else if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
		r.line = syntax.Line
	}
	return record, err
}

// syntax says what is wrong with a line that isn't CSV, or has other columns
// than the header. The next line can be read all the same.
func (r *importReader) syntax(err *csv.ParseError, expected, got int) (line int, text string) {
	if errors.Is(err, csv.ErrFieldCount) {
		line, _ = r.csv.FieldPos(0)
		return line, fmt.Sprintf("%d columns, expected %d as in the header", got, expected)
	}
	return err.StartLine, err.Err.Error()
}

// boundedRows lets no row through that is too long, so that a file which is
// something else, or has a quote too many, isn't held in memory as one row.
type boundedRows struct {
	in   io.Reader
	left int // octets that may be read before the next row
}

func (b *boundedRows) next() { b.left = maxImportRow }

// Read is io.Reader.
func (b *boundedRows) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errRowTooLong
	}
	n, err := b.in.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// skipByteOrderMark takes off what spreadsheets put in front of UTF-8.
func skipByteOrderMark(r io.Reader) io.Reader {
	in := bufio.NewReader(r)
	if start, err := in.Peek(3); err == nil && string(start) == "\uFEFF" {
		in.Discard(3) // never fails: they are buffered
	}
	return in
}
