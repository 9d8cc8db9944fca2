package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Limits of the admin API.
const (
	maxEntryBody   = 64 << 10 // octets
	maxPage        = 1000     // accounts
	defaultPage    = 100
	importWithin   = 10 * time.Minute
	exportPatience = 30 * time.Second // for a reader to take what was written
)

// serveAdmin adds the book's part of the admin API:
//
//	GET  /accounts?after=&limit=         a page of accounts, in the order of their addresses
//	POST /accounts                       adds one: {"aor", "password", "balance", "identities"}
//	POST /accounts/{aor}/credit          adds to its balance: {"amount"}
//	POST /accounts/import                adds many, all or none: CSV
//	GET  /cdrs?format=&account=&from=&to= CSV, or JSON with one object a line
//
// Amounts are decimal numbers in strings, times RFC 3339. Errors are
// {"error": "…"}.
func (b *book) serveAdmin(admin plugin.Admin) {
	admin.Handle("GET /accounts", answer(b.listAccounts))
	admin.Handle("POST /accounts", answer(b.addAccount))
	admin.Handle("POST /accounts/{aor}/credit", answer(b.creditAccount))
	admin.Handle("POST /accounts/import", answer(b.importAccounts))
	admin.Handle("GET /cdrs", b.exportCDRs)
}

// httpError is an error with its status.
type httpError struct {
	status int
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }

func badRequest(err error) error { return &httpError{http.StatusBadRequest, err} }

// answer makes a handler of what returns a status and a document.
func answer(do func(http.ResponseWriter, *http.Request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, document, err := do(w, r)
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
	if _, ok := errors.AsType[*invalidImport](err); ok {
		return http.StatusBadRequest
	}
	switch {
	case errors.Is(err, errNoAccount):
		return http.StatusNotFound
	case errors.Is(err, errTooMuch):
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

// readJSON reads a small document strictly.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEntryBody))
	in.DisallowUnknownFields()
	err := in.Decode(into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return badRequest(fmt.Errorf("%s: expected a %s, not a %s", wrong.Field, wrong.Type, wrong.Value))
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return err
	}
	if err != nil {
		return badRequest(fmt.Errorf("not the JSON that was expected: %w", err))
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return badRequest(errors.New("not the JSON that was expected: there is more behind it"))
	}
	return nil
}

// readQuery refuses parameters that aren't known: one misspelt would otherwise
// select everything.
func readQuery(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest(err)
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, badRequest(fmt.Errorf("unknown parameter %q: expected %s", name, strings.Join(known, ", ")))
		}
	}
	return query, nil
}

func (b *book) listAccounts(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	query, err := readQuery(r, "after", "limit")
	if err != nil {
		return 0, nil, err
	}
	limit := defaultPage
	if text := query.Get("limit"); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxPage {
			return 0, nil, badRequest(fmt.Errorf("limit: expected a number from 1 to %d", maxPage))
		}
	}
	found, err := b.list(r.Context(), query.Get("after"), limit)
	return http.StatusOK, found, err
}

func (b *book) addAccount(w http.ResponseWriter, r *http.Request) (int, any, error) {
	var e entry
	if err := readJSON(w, r, &e); err != nil {
		return 0, nil, err
	}
	a, err := e.account()
	if err != nil {
		return 0, nil, badRequest(err)
	}
	if err := b.add(r.Context(), a); err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, b.showOne(a), nil
}

func (b *book) creditAccount(w http.ResponseWriter, r *http.Request) (int, any, error) {
	var credit struct {
		Amount string `json:"amount"`
	}
	if err := readJSON(w, r, &credit); err != nil {
		return 0, nil, err
	}
	amount, err := plugin.ParseMoney(credit.Amount)
	if err != nil {
		return 0, nil, badRequest(fmt.Errorf("amount: %w", err))
	}
	if amount <= 0 || amount > ceiling {
		return 0, nil, badRequest(fmt.Errorf("amount: expected more than 0 and at most %s", ceiling))
	}
	a, err := b.credit(r.Context(), r.PathValue("aor"), amount)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, b.showOne(a), nil
}

func (b *book) importAccounts(w http.ResponseWriter, r *http.Request) (int, any, error) {
	// A large file takes longer than other requests may. Where the server sets
	// no deadlines there are none to extend.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(importWithin))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(importWithin))
	rows, err := readImport(http.MaxBytesReader(w, r.Body, maxImportBody))
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), importWithin)
	defer cancel()
	if err := b.importAll(ctx, rows); err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, imported{len(rows)}, nil
}

// imported answers an import.
type imported struct {
	Imported int `json:"imported"`
}

func (b *book) exportCDRs(w http.ResponseWriter, r *http.Request) {
	q, format, err := readCDRQuery(r)
	if err != nil {
		refuse(w, err)
		return
	}
	out := bufio.NewWriterSize(patientWriter{w, http.NewResponseController(w)}, 64<<10)
	cdrs, err := newCDRWriter(format, out)
	if err != nil {
		refuse(w, badRequest(err))
		return
	}
	w.Header().Set("Content-Type", cdrs.contentType())
	err = errors.Join(b.cdrs(r.Context(), q, cdrs), cdrs.end(), out.Flush())
	if err != nil {
		// The status has gone out: only a broken connection tells the reader
		// that this isn't all.
		b.log.Warn("the export of CDRs broke off", "reason", err)
		panic(http.ErrAbortHandler)
	}
}

// patientWriter gives the reader time for each piece and not for all of them.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w patientWriter) Write(p []byte) (int, error) {
	// Where the server sets no deadlines there are none to extend.
	_ = w.control.SetWriteDeadline(time.Now().Add(exportPatience))
	return w.ResponseWriter.Write(p)
}

func readCDRQuery(r *http.Request) (q cdrQuery, format string, err error) {
	query, err := readQuery(r, "format", "account", "from", "to")
	if err != nil {
		return q, "", err
	}
	q.account = query.Get("account")
	for name, into := range map[string]*time.Time{"from": &q.from, "to": &q.to} {
		if *into, err = readTime(query.Get(name)); err != nil {
			return q, "", badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return q, query.Get("format"), nil
}

// readTime reads RFC 3339, or a day alone: its beginning in UTC.
func readTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("expected a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31")
}
