package ledger

import (
	"encoding/json"
	"io"
)

// jsonArray writes a JSON array element by element, each on a line of its own.
type jsonArray struct {
	out   io.Writer
	begun bool
}

func (a *jsonArray) write(element any) error {
	text, err := json.Marshal(element)
	if err != nil {
		return err
	}
	_, err = a.out.Write(append([]byte(a.next()), text...))
	return err
}

// next is what goes before an element.
func (a *jsonArray) next() string {
	if a.begun {
		return ",\n"
	}
	a.begun = true
	return "[\n"
}

// end closes the array.
func (a *jsonArray) end() error {
	closing := "\n]\n"
	if !a.begun {
		closing = "[]\n"
	}
	_, err := io.WriteString(a.out, closing)
	return err
}
