package ledger

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/message"
)

// Limits of an import.
const (
	maxImportRows = 1_000_000
	maxImportBody = 256 << 20 // octets
	maxImportRow  = 64 << 10  // octets: more than all that an account may have
	maxShownName  = 40        // octets of a column's name in an error
)

// importRow is a row that may become an account: its names are right. account
// is nil if something else is wrong with it.
type importRow struct {
	line    int
	names   []message.Address // the account's own first
	account *account
}

// importFile is what a CSV file says.
type importFile struct {
	rows  []importRow
	wrong faults
}

// The columns of an import. The first three must be there.
const (
	columnAOR        = "aor"
	columnPassword   = "password"
	columnBalance    = "balance"
	columnIdentities = "identities"
	columnAttributes = "attributes"
)

var allColumns = []string{columnAOR, columnPassword, columnBalance, columnIdentities, columnAttributes}

const importHeader = "aor,password,balance and perhaps identities,attributes"

// readImport reads accounts from CSV (RFC 4180). The first line names the
// columns aor, password and balance, in any order, and perhaps identities,
// separated by spaces or semicolons, and attributes: name=value, separated by
// semicolons. All wrong rows are found, with their lines. An error: the file
// can't be read to its end, or is no list of accounts at all.
func readImport(r io.Reader) (*importFile, error) {
	in := newImportReader(r)
	f := &importFile{}
	columns, err := readHeader(in, &f.wrong)
	if err != nil || f.wrong.any() {
		return f, err
	}
	earlier := map[message.Address]int{} // name: line
	for lines := 0; ; lines++ {
		record, err := in.next()
		if errors.Is(err, io.EOF) {
			return f, f.check()
		}
		if errors.Is(err, errRowTooLong) { // where the next one begins can't be known
			f.wrong.add(in.line+1, err.Error())
			return f, nil
		}
		if lines == maxImportRows {
			return f, badRequest(fmt.Errorf("more than %d accounts: expected them in several files", maxImportRows))
		}
		if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
			f.wrong.add(in.syntax(syntax, len(columns), len(record)))
			continue
		}
		if err != nil {
			return f, fmt.Errorf("read the accounts: %w", err)
		}
		line, _ := in.csv.FieldPos(0)
		f.add(line, columns, record, earlier)
	}
}

// check refuses a file without rows.
func (f *importFile) check() error {
	if len(f.rows) == 0 && !f.wrong.any() {
		return badRequest(errors.New("no accounts: expected rows behind the header"))
	}
	return nil
}

// add takes a row, with all that is wrong with it.
func (f *importFile) add(line int, columns header, record []string, earlier map[message.Address]int) {
	e, err := columns.entry(record)
	names, badNames := e.names()
	a, badAccount := e.account()
	var texts []string
	for _, err := range []error{err, badAccount} {
		if err != nil {
			texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if badNames == nil {
		f.rows = append(f.rows, importRow{line, names, a})
		if text := twice(names, line, earlier); text != "" {
			texts = append(texts, text)
		}
	}
	if len(texts) > 0 {
		f.wrong.add(line, strings.Join(texts, "; "))
	}
}

// twice says which name is on an earlier line too, and remembers the others.
func twice(names []message.Address, line int, earlier map[message.Address]int) (text string) {
	for _, name := range names {
		if first, ok := earlier[name]; ok {
			if text == "" {
				text = fmt.Sprintf("%s is on line %d already", name, first)
			}
			continue
		}
		earlier[name] = line
	}
	return text
}

// header says which column is where.
type header []string

func readHeader(in *importReader, wrong *faults) (header, error) {
	record, err := in.next()
	if errors.Is(err, io.EOF) {
		return nil, badRequest(errors.New("the file is empty: expected the header " + importHeader))
	}
	if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
		wrong.add(syntax.StartLine, syntax.Err.Error())
		return nil, nil
	}
	if errors.Is(err, errRowTooLong) || len(record) > len(allColumns) {
		wrong.add(1, "no header of a list of accounts: expected "+importHeader)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	var columns header
	for _, name := range record {
		columns = append(columns, strings.ToLower(strings.TrimSpace(name)))
	}
	columns.check(wrong)
	return columns, nil
}

func (h header) check(wrong *faults) {
	for i, name := range h {
		if !slices.Contains(allColumns, name) {
			wrong.add(1, fmt.Sprintf("unknown column %q: expected %s", name[:min(len(name), maxShownName)], importHeader))
		}
		if slices.Contains(h[:i], name) {
			wrong.add(1, fmt.Sprintf("the column %q is there twice", name))
		}
	}
	for _, name := range []string{columnAOR, columnPassword, columnBalance} {
		if !slices.Contains(h, name) {
			wrong.add(1, fmt.Sprintf("the column %q is missing", name))
		}
	}
}

// entry puts a row's columns in their places. The error concerns the
// attributes.
func (h header) entry(record []string) (e entry, err error) {
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
		case columnAttributes:
			e.Attributes, err = splitAttributes(record[i])
		}
	}
	return e, err
}

func splitAttributes(s string) (map[string]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	all := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		if err := setAttribute(all, strings.TrimSpace(part)); err != nil {
			return nil, err
		}
	}
	return all, nil
}
