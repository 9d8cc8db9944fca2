package ledger

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Limits of the admin API.
const (
	maxPage      = 1000 // accounts
	defaultPage  = 100
	importWithin = 10 * time.Minute
	maxFileName  = 255 // octets
)

// serveAdmin adds the book's part of the admin API:
//
//	GET    /accounts                 a page of accounts, in the order of their addresses
//	POST   /accounts                 adds one
//	GET    /accounts/{aor}           shows one
//	DELETE /accounts/{aor}           deletes one
//	POST   /accounts/{aor}/credit    adds to its balance, or takes back
//	POST   /accounts/{aor}/suspend   suspends it
//	POST   /accounts/{aor}/resume    undoes that
//	POST   /accounts/import          adds many, all or none
//	GET    /cdrs                     what was paid for
//
// Amounts are decimal numbers in strings, times RFC 3339. Errors are
// {"error": "…"}: 400 for what is wrong with the request, 404 for an unknown
// account, 409 for what doesn't fit the books, 413 for too long a body, 503 if
// the storage fails.
func (b *book) serveAdmin(admin plugin.Admin) {
	admin.Handle("GET /accounts", answer(http.StatusOK, b.listAccounts))
	admin.Handle("POST /accounts", answer(http.StatusCreated, b.addAccount))
	admin.Handle("GET /accounts/{aor}", answer(http.StatusOK, b.showAccount))
	admin.Handle("DELETE /accounts/{aor}", answer(http.StatusOK, b.deleteAccount))
	admin.Handle("POST /accounts/{aor}/credit", answer(http.StatusOK, b.creditAccount))
	admin.Handle("POST /accounts/{aor}/suspend", answer(http.StatusOK, b.suspendAccount))
	admin.Handle("POST /accounts/{aor}/resume", answer(http.StatusOK, b.resumeAccount))
	admin.Handle("POST /accounts/import", answer(http.StatusCreated, b.importAccounts))
	admin.Handle("GET /cdrs", b.exportCDRs)
}

// pathID returns the ID of the account that a path names.
func pathID(r *http.Request) (string, error) {
	if _, err := readQuery(r); err != nil {
		return "", err
	}
	return accountID(r.PathValue("aor"))
}

func accountID(aor string) (string, error) {
	own, err := message.ParseAddress(aor)
	if err != nil {
		return "", badRequest(fmt.Errorf("%q: %w", aor, err))
	}
	return own.String(), nil
}

// listAccounts: GET /accounts?after=&limit=&domain=&prefix=&suspended=&balance_below=
// answers accountPage.
//
//   - after: the next of the page before; limit: 1 to 1000, default 100
//   - domain: of the address; prefix: how the address begins
//   - suspended: true or false; balance_below: an amount
func (b *book) listAccounts(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := readAccountQuery(r)
	if err != nil {
		return nil, err
	}
	return b.list(r.Context(), q)
}

func readAccountQuery(r *http.Request) (accountQuery, error) {
	query, err := readQuery(r, "after", "limit", "domain", "prefix", "suspended", "balance_below")
	if err != nil {
		return accountQuery{}, err
	}
	q := accountQuery{
		after: query.Get("after"), prefix: query.Get("prefix"),
		domain: strings.ToLower(query.Get("domain")),
	}
	limit, badLimit := readLimit(query.Get("limit"))
	suspended, badSuspended := readOptional(query, "suspended", parseBool)
	below, badBelow := readOptional(query, "balance_below", plugin.ParseMoney)
	if err := errors.Join(badLimit, badSuspended, badBelow); err != nil {
		return q, badRequest(err)
	}
	q.limit, q.suspended, q.balanceBelow = limit, suspended, below
	return q, nil
}

func readLimit(text string) (int, error) {
	if text == "" {
		return defaultPage, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxPage {
		return 0, fmt.Errorf("limit: expected a number from 1 to %d", maxPage)
	}
	return limit, nil
}

// readOptional reads a parameter; nil: it isn't there.
func readOptional[T any](query url.Values, name string, parse func(string) (T, error)) (*T, error) {
	if !query.Has(name) {
		return nil, nil
	}
	value, err := parse(query.Get(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &value, nil
}

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, errors.New("expected true or false")
	}
	return s == "true", nil
}

// addAccount: POST /accounts with entry answers 201 and accountView.
func (b *book) addAccount(w http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := readQuery(r); err != nil {
		return nil, err
	}
	var e entry
	if err := readJSON(w, r, &e, `an object {"aor", "password", "balance", "identities", "attributes"}`); err != nil {
		return nil, err
	}
	a, err := e.account()
	if err != nil {
		return nil, badRequest(err)
	}
	if err := b.add(r.Context(), time.Now(), a); err != nil {
		return nil, err
	}
	return b.show(a), nil
}

// showAccount: GET /accounts/{aor} answers accountView.
func (b *book) showAccount(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return b.showID(id)
}

// deleteAccount: DELETE /accounts/{aor}?force=true answers accountView as it
// was at the end. Without force it is refused (409) while reservations are open
// or the balance isn't zero.
func (b *book) deleteAccount(_ http.ResponseWriter, r *http.Request) (any, error) {
	query, err := readQuery(r, "force")
	if err != nil {
		return nil, err
	}
	force, err := parseBool(cmp.Or(query.Get("force"), "false"))
	if err != nil {
		return nil, badRequest(fmt.Errorf("force: %w", err))
	}
	id, err := accountID(r.PathValue("aor"))
	if err != nil {
		return nil, err
	}
	return b.delete(r.Context(), id, force)
}

// creditRequest adds an amount, or takes back one below zero. A key of up to
// 128 printable characters makes the request safe to repeat for a week: under
// one key the account is credited once. The header Idempotency-Key says the
// same.
type creditRequest struct {
	Amount string `json:"amount"`
	Key    string `json:"key,omitempty"`
}

// creditAnswer is the account after the credit. Repeated: its key was used
// before for the same amount, and nothing was changed this time.
type creditAnswer struct {
	accountView
	Repeated bool `json:"repeated"`
}

// creditAccount: POST /accounts/{aor}/credit with creditRequest answers
// creditAnswer; 409: more would be taken back than is available, or the key was
// used for another amount.
func (b *book) creditAccount(w http.ResponseWriter, r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	var request creditRequest
	if err := readJSON(w, r, &request, `an object {"amount", "key"}`); err != nil {
		return nil, err
	}
	c, err := request.credit(id, r.Header.Get("Idempotency-Key"))
	if err != nil {
		return nil, badRequest(err)
	}
	a, repeated, err := b.credit(r.Context(), time.Now(), c)
	if err != nil {
		return nil, err
	}
	return creditAnswer{b.show(a), repeated}, nil
}

// credit checks a request; header is the key that came outside of it.
func (r creditRequest) credit(id, header string) (credit, error) {
	amount, err := plugin.ParseMoney(r.Amount)
	if err != nil {
		return credit{}, fmt.Errorf("amount: %w", err)
	}
	if amount == 0 || amount > ceiling || amount < -ceiling {
		return credit{}, fmt.Errorf("amount: expected one from -%s to %s that isn't zero", ceiling, ceiling)
	}
	if r.Key != "" && header != "" && r.Key != header {
		return credit{}, errors.New("key: expected the same as in the header Idempotency-Key, or only one of them")
	}
	key := cmp.Or(r.Key, header)
	if len(key) > maxCreditKey || strings.ContainsFunc(key, notPrintable) {
		return credit{}, fmt.Errorf("key: expected up to %d printable characters of ASCII", maxCreditKey)
	}
	return credit{account: id, amount: amount, key: key}, nil
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// suspendAccount: POST /accounts/{aor}/suspend, without a body, answers
// accountView; also if the account is suspended already.
func (b *book) suspendAccount(_ http.ResponseWriter, r *http.Request) (any, error) {
	return b.setSuspended(r, true)
}

// resumeAccount: POST /accounts/{aor}/resume, without a body, answers
// accountView; also if the account isn't suspended.
func (b *book) resumeAccount(_ http.ResponseWriter, r *http.Request) (any, error) {
	return b.setSuspended(r, false)
}

func (b *book) setSuspended(r *http.Request, suspended bool) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	a, err := b.suspend(r.Context(), id, suspended)
	if err != nil {
		return nil, err
	}
	return b.show(a), nil
}

// importAnswer says how many accounts were added.
type importAnswer struct {
	Imported int `json:"imported"`
}

// importAccounts: POST /accounts/import?file= with text/csv, at most 256 MiB and
// a million rows, answers 201 and importAnswer. file is what the file is called
// in errors: "file:line: …", one a line. 400 and 409 (only names that are
// taken): all wrong rows up to a hundred, and nothing was imported.
func (b *book) importAccounts(w http.ResponseWriter, r *http.Request) (any, error) {
	query, err := readQuery(r, "file")
	if err != nil {
		return nil, err
	}
	name := query.Get("file")
	if len(name) > maxFileName || strings.ContainsFunc(name, unicode.IsControl) {
		return nil, badRequest(fmt.Errorf("file: expected a name of up to %d octets", maxFileName))
	}
	ctx, cancel := context.WithTimeout(r.Context(), importWithin)
	defer cancel()
	n, err := b.importFrom(ctx, http.MaxBytesReader(w, r.Body, maxImportBody))
	if invalid, ok := errors.AsType[*invalidImport](err); ok {
		return nil, invalid.answer(name)
	}
	return importAnswer{n}, err
}

// exportCDRs: GET /cdrs?format=&account=&from=&to= answers CSV with a header, or
// a JSON array of cdr, in the order in which the messages were received.
//
//   - format: csv (default) or json
//   - account: who paid; from, to: when it was settled, from <= t < to: RFC
//     3339, or a day, which begins at 00:00 UTC
func (b *book) exportCDRs(w http.ResponseWriter, r *http.Request) {
	q, format, err := readCDRQuery(r)
	if err != nil {
		refuse(w, err)
		return
	}
	out := bufio.NewWriterSize(w, 64<<10)
	cdrs, err := newCDRWriter(format, out)
	if err != nil {
		refuse(w, badRequest(err))
		return
	}
	w.Header().Set("Content-Type", cdrs.contentType())
	err = b.cdrs(r.Context(), q, cdrs)
	if err == nil {
		err = errors.Join(cdrs.end(), out.Flush())
	}
	if err != nil {
		// The status has gone out: only a broken connection tells the reader
		// that this isn't all.
		b.log.Warn("the export of CDRs broke off", "reason", err)
		panic(http.ErrAbortHandler)
	}
}

func readCDRQuery(r *http.Request) (q cdrQuery, format string, err error) {
	query, err := readQuery(r, "format", "account", "from", "to")
	if err != nil {
		return q, "", err
	}
	if account := query.Get("account"); account != "" {
		if q.account, err = accountID(account); err != nil {
			return q, "", err
		}
	}
	from, badFrom := readTime("from", query.Get("from"))
	to, badTo := readTime("to", query.Get("to"))
	if err := errors.Join(badFrom, badTo); err != nil {
		return q, "", badRequest(err)
	}
	q.from, q.to = from, to
	return q, cmp.Or(query.Get("format"), "csv"), nil
}

// readTime reads RFC 3339, or a day alone: its beginning in UTC.
func readTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: expected a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31", name)
}
