package tools

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/plugins/rego/match"
)

// check refuses a value that no question has.
func (f questionField) check(value reflect.Value) error {
	switch {
	case f.enum != "":
		return f.checkWord(value.String())
	case value.Kind() == reflect.Int:
		return f.checkNumber(value.Int())
	case value.Kind() == reflect.Map && value.Type().Elem().Kind() == reflect.Int:
		return f.checkEntries(value)
	case strings.HasSuffix(f.path, ".address"):
		return checkAddress(value.String())
	case strings.HasSuffix(f.path, ".domain"):
		return checkDomain(value.String())
	case f.path == "clock.zone":
		return checkZone(value.String())
	}
	return nil
}

// checkWord refuses a word that isn't one of those that there are.
func (f questionField) checkWord(word string) error {
	if slices.Contains(strings.Split(f.enum, ","), word) {
		return nil
	}
	return fmt.Errorf("expected one of %s", strings.ReplaceAll(f.enum, ",", ", "))
}

// highest are the numbers that have an end.
var highest = map[string]int64{"clock.hour": 23, "clock.minute": 59}

func (f questionField) checkNumber(n int64) error {
	most, ends := highest[f.path]
	switch {
	case ends && (n < 0 || n > most):
		return fmt.Errorf("expected a whole number from 0 to %d", most)
	case n < 0:
		return errors.New("expected a whole number, 0 or more")
	}
	return nil
}

func (f questionField) checkEntries(table reflect.Value) error {
	for _, name := range table.MapKeys() {
		if err := f.checkNumber(table.MapIndex(name).Int()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkAddress takes user@domain, and what has no domain, such as a number.
func checkAddress(text string) error {
	if !strings.Contains(text, "@") {
		return nil
	}
	a, err := message.ParseAddress(text)
	if err != nil || !match.IsDomain(a.Host) || strings.HasPrefix(text, "sip:") {
		return errors.New("expected user@domain, or a number")
	}
	return nil
}

// checkDomain takes no domain, too: that of a number.
func checkDomain(text string) error {
	if text == "" || match.IsDomain(strings.ToLower(text)) {
		return nil
	}
	return errors.New("expected a domain, such as sip.example.com")
}

func checkZone(name string) error {
	if _, err := time.LoadLocation(name); err != nil {
		return errors.New("expected the name of a time zone, such as Europe/Vienna")
	}
	return nil
}
