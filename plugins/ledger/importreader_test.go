package ledger

import (
	"io"
	"strings"
	"testing"
)

// endless is a text again and again.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.text)
	}
	e.read += n
	return n, nil
}

// TestImportHoldsNoEndlessRow: of a file that is something else no more is read
// than a row may have, and the line is named.
func TestImportHoldsNoEndlessRow(t *testing.T) {
	const head = "aor,password,balance\na@x.example,secret,1.00\n"
	for name, c := range map[string]struct {
		before, again string
		line          int
	}{
		"commas":                {head, ",", 3},
		"an open quote":         {head + "\"", "a,b\n", 3},
		"one long word":         {head + "b@x.example,secret,1.00\n", "x", 4},
		"commas in the header":  {"", ",", 1},
		"a word for a header":   {"", "x", 1},
		"a quote in the header": {"\"", "aor\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			rest := &endless{text: c.again}
			f, err := readImport(io.MultiReader(strings.NewReader(c.before), rest))
			if err != nil {
				t.Fatal(err)
			}
			if len(f.wrong.first) != 1 || f.wrong.first[0].line != c.line || len(f.wrong.first[0].text) > 200 {
				t.Errorf("faults %.300v, want one on line %d", f.wrong.first, c.line)
			}
			if rest.read > 2*maxImportRow {
				t.Errorf("%d octets are read", rest.read)
			}
		})
	}
}

// TestImportTakesTheLongestRow: a row with all that an account may have isn't
// too long, wherever in the file it stands.
func TestImportTakesTheLongestRow(t *testing.T) {
	long := strings.Repeat("\"\"", maxAttribute)
	attributes := strings.TrimSuffix(strings.Repeat("name=\"\""+long+";", maxAttributes), ";")
	row := "a@x.example,secret,1.00,\"" + attributes + "\"\n"
	if len(row) > maxImportRow {
		t.Fatalf("a row of %d octets is as long as one may be", len(row))
	}
	in := newImportReader(strings.NewReader("aor,password,balance,attributes\n" + strings.Repeat(row, 20)))
	for n := range 21 {
		if _, err := in.next(); err != nil {
			t.Fatalf("row %d: %v", n+1, err)
		}
	}
}

func TestHeaderOfManyColumns(t *testing.T) {
	for _, header := range []string{strings.Repeat("a,", 30_000), "aor,password,balance," + strings.Repeat("x", 60_000)} {
		f, err := readImport(strings.NewReader(header + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if text := f.wrong.text("file"); !strings.HasPrefix(text, "file:1: ") || len(text) > 300 {
			t.Errorf("it is said %.400q", text)
		}
	}
}
