package app

import (
	"encoding"
	"errors"
	"math"
	"reflect"
	"strconv"
	"time"
)

// What each kind of value is called in errors.
var errNoDuration = errors.New("expected a duration with a unit, such as 30s or 5m")

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// readsText tells whether a type reads its own text, as plugin.Money does.
func readsText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// isScalar tells whether values of the type are written as one word.
func isScalar(t reflect.Type) bool {
	if readsText(t) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64:
		return true
	}
	return isWhole(t)
}

func isWhole(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

// parseScalar reads a value of a scalar type from what is written in the file
// or in an environment variable. Errors say what was expected, and never what
// was found: it may be a secret.
func parseScalar(text string, t reflect.Type) (any, error) {
	value := reflect.New(t)
	if reader, ok := value.Interface().(encoding.TextUnmarshaler); ok {
		err := reader.UnmarshalText([]byte(text))
		return value.Elem().Interface(), err
	}
	err := setScalar(value.Elem(), text)
	return value.Elem().Interface(), err
}

func setScalar(value reflect.Value, text string) error {
	if value.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return errNoDuration
		}
		value.SetInt(int64(d))
		return nil
	}
	switch {
	case value.Kind() == reflect.String:
		value.SetString(text)
	case value.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("expected true or false")
		}
		value.SetBool(text == "true")
	case value.CanInt():
		n, err := strconv.ParseInt(text, 10, value.Type().Bits())
		if err != nil {
			return wrongNumber(err, "expected a whole number")
		}
		value.SetInt(n)
	case value.CanUint():
		n, err := strconv.ParseUint(text, 10, value.Type().Bits())
		if err != nil {
			return wrongNumber(err, "expected a whole number, not negative")
		}
		value.SetUint(n)
	default:
		f, err := strconv.ParseFloat(text, value.Type().Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return wrongNumber(err, "expected a number")
		}
		value.SetFloat(f)
	}
	return nil
}

func wrongNumber(err error, expected string) error {
	if errors.Is(err, strconv.ErrRange) {
		return errors.New(expected + "; this one is out of range")
	}
	return errors.New(expected)
}
