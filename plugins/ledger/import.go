package ledger

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Limits of an import.
const (
	maxImportRows = 1_000_000
	maxImportBody = 128 << 20 // octets
)

// importRow is an account and the line it came from.
type importRow struct {
	line    int
	account *account
}

// invalidImport says what is wrong with a file.
type invalidImport struct{ text string }

func (e *invalidImport) Error() string { return e.text }

// The columns of an import. All but identities must be there.
const (
	columnAOR        = "aor"
	columnPassword   = "password"
	columnBalance    = "balance"
	columnIdentities = "identities"
)

// readImport reads accounts from CSV (RFC 4180). The first line names the
// columns aor, password and balance, in any order, and perhaps identities,
// which are separated by spaces or semicolons. Wrong rows are all named, with
// their lines.
func readImport(r io.Reader) ([]importRow, error) {
	in := csv.NewReader(skipByteOrderMark(r))
	in.ReuseRecord = true
	columns, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	var rows []importRow
	var wrong faults
	for {
		record, err := in.Read()
		switch {
		case errors.Is(err, io.EOF):
			return finishImport(rows, wrong)
		case errors.Is(err, csv.ErrFieldCount):
			line, _ := in.FieldPos(0)
			wrong.add(line, fmt.Sprintf("%d columns, expected %d as in the header", len(record), len(columns)))
			continue
		case err != nil:
			return nil, unreadable(err, wrong)
		}
		line, _ := in.FieldPos(0)
		if len(rows) == maxImportRows {
			return nil, &invalidImport{fmt.Sprintf("line %d: more than %d accounts: import them in several files", line, maxImportRows)}
		}
		a, err := columns.entry(record).account()
		if err != nil {
			wrong.add(line, strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		rows = append(rows, importRow{line, a})
	}
}

func finishImport(rows []importRow, wrong faults) ([]importRow, error) {
	if len(wrong) > 0 {
		return nil, &invalidImport{wrong.String()}
	}
	if len(rows) == 0 {
		return nil, &invalidImport{"no accounts: there is nothing behind the header"}
	}
	return rows, nil
}

// unreadable is for what no further line can be read after.
func unreadable(err error, wrong faults) error {
	syntax, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return fmt.Errorf("read the accounts: %w", err)
	}
	wrong.add(syntax.Line, syntax.Err.Error())
	return &invalidImport{wrong.String()}
}

// header says which column is where.
type header []string

func readHeader(in *csv.Reader) (header, error) {
	record, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, &invalidImport{"the file is empty: expected the header aor,password,balance"}
	}
	if err != nil {
		return nil, unreadable(err, nil)
	}
	var columns header
	for _, name := range record {
		columns = append(columns, strings.ToLower(strings.TrimSpace(name)))
	}
	return columns, columns.check()
}

func (h header) check() error {
	for i, name := range h {
		switch name {
		case columnAOR, columnPassword, columnBalance, columnIdentities:
		default:
			return &invalidImport{fmt.Sprintf("line 1: unknown column %q: expected aor, password, balance and perhaps identities", name)}
		}
		if slices.Contains(h[:i], name) {
			return &invalidImport{fmt.Sprintf("line 1: the column %q is there twice", name)}
		}
	}
	for _, name := range []string{columnAOR, columnPassword, columnBalance} {
		if !slices.Contains(h, name) {
			return &invalidImport{fmt.Sprintf("line 1: the column %q is missing", name)}
		}
	}
	return nil
}

func (h header) entry(record []string) entry {
	var e entry
	for i, name := range h {
		switch name {
		case columnAOR:
			e.AOR = record[i]
		case columnPassword:
			e.Password = record[i]
		case columnBalance:
			e.Balance = strings.TrimSpace(record[i])
		case columnIdentities:
			e.Identities = strings.FieldsFunc(record[i], func(r rune) bool { return r == ' ' || r == ';' })
		}
	}
	return e
}

// skipByteOrderMark takes off what spreadsheets put in front of UTF-8.
func skipByteOrderMark(r io.Reader) io.Reader {
	in := bufio.NewReader(r)
	if start, err := in.Peek(3); err == nil && string(start) == "\uFEFF" {
		in.Discard(3) // never fails: they are buffered
	}
	return in
}
