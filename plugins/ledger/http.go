package ledger

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// maxEntryBody is the longest body that isn't an import, in octets.
const maxEntryBody = 64 << 10

// httpError is an error with its status.
type httpError struct {
	status int
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }

func (e *httpError) Unwrap() error { return e.err }

func badRequest(err error) error { return &httpError{http.StatusBadRequest, err} }

// answer makes a handler of what returns a document.
func answer(status int, do func(http.ResponseWriter, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		document, err := do(w, r)
		if err != nil {
			refuse(w, err)
			return
		}
		writeJSON(w, status, document)
	}
}

func refuse(w http.ResponseWriter, err error) {
	writeJSON(w, statusOf(err), map[string]string{"error": err.Error()})
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*httpError](err); ok {
		return e.status
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	if _, ok := errors.AsType[*takenError](err); ok {
		return http.StatusConflict
	}
	if _, ok := errors.AsType[*inUseError](err); ok {
		return http.StatusConflict
	}
	switch {
	case errors.Is(err, errNoAccount):
		return http.StatusNotFound
	case errors.Is(err, errTooMuch), errors.Is(err, errTooLittle), errors.Is(err, errOtherUse), errors.Is(err, errImporting):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

func writeJSON(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The peer may have gone: then nobody is left to be told.
	_ = json.NewEncoder(w).Encode(document)
}

// readJSON reads a small document strictly. expected is what it should have
// been, for whoever sent it.
func readJSON(w http.ResponseWriter, r *http.Request, into any, expected string) error {
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEntryBody))
	in.DisallowUnknownFields()
	if err := in.Decode(into); err != nil {
		return explainJSON(err, expected)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return badRequest(fmt.Errorf("expected %s, and nothing behind it", expected))
	}
	return nil
}

// explainJSON says what was expected in words of JSON, not of Go.
func explainJSON(err error, expected string) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return err
	}
	if errors.Is(err, io.EOF) {
		return badRequest(fmt.Errorf("expected %s, not an empty body", expected))
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !ok:
		return badRequest(fmt.Errorf("expected %s: %s", expected, strings.TrimPrefix(err.Error(), "json: ")))
	case wrong.Field == "":
		return badRequest(fmt.Errorf("expected %s, not %s", expected, article(wrong.Value)))
	}
	return badRequest(fmt.Errorf("%s: expected %s, not %s", wrong.Field, article(jsonKind(wrong.Type)), article(wrong.Value)))
}

// jsonKind is what JSON calls a type.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Slice:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return "number"
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if strings.ContainsRune("aeiou", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}

// readQuery refuses parameters that aren't known: one misspelt would otherwise
// select everything.
func readQuery(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest(fmt.Errorf("expected a query such as ?name=value: %w", err))
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, badRequest(fmt.Errorf("unknown parameter %q: expected %s", name, cmp.Or(strings.Join(known, ", "), "none")))
		}
	}
	return query, nil
}
