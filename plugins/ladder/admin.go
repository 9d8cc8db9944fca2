package ladder

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/message"
)

// How many events an answer has.
const (
	defaultLimit = 500
	maxLimit     = 5_000
)

// serveTrace answers
//
//	GET /trace?message=&address=&limit=
//
// message is an ID or a public ID; address an address-of-record or a number,
// whose last 20 messages are traced. One of both is needed. Errors are
// {"error": "…"}; 404: nothing is remembered of it.
func (l *Ladder) serveTrace(w http.ResponseWriter, r *http.Request) {
	want, limit, err := l.readQuery(r.URL)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	found := l.find(want, limit)
	if len(found.Messages) == 0 {
		forgotten := fmt.Sprintf("nothing is remembered of it: these are the last %d steps of messages, since the start or the last change of this plugin", len(l.steps.entries))
		writeJSON(w, http.StatusNotFound, map[string]string{"error": forgotten})
		return
	}
	writeJSON(w, http.StatusOK, found)
}

func (l *Ladder) readQuery(u *url.URL) (wanted, int, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, 0, err
	}
	for name := range query {
		if !slices.Contains([]string{"message", "address", "limit"}, name) {
			return nil, 0, fmt.Errorf("unknown parameter %q: expected message, address, limit", name)
		}
	}
	limit := defaultLimit
	if given := query.Get("limit"); given != "" {
		limit, err = strconv.Atoi(given)
		if err != nil || limit < 1 || limit > maxLimit {
			return nil, 0, fmt.Errorf("limit: expected a number from 1 to %d", maxLimit)
		}
	}
	want, err := l.readWanted(query.Get("message"), query.Get("address"))
	return want, limit, err
}

func (l *Ladder) readWanted(id, address string) (wanted, error) {
	if (id == "") == (address == "") {
		return nil, errors.New("expected either message or address")
	}
	if address != "" {
		a, err := parseAddress(address)
		return l.withAddress(a), err
	}
	if parsed, err := message.ParseID(id); err == nil {
		return l.withID(parsed), nil
	}
	return l.withPublicID(id), nil
}

// parseAddress reads an address-of-record, or a number without a domain.
func parseAddress(s string) (message.Address, error) {
	if strings.Contains(s, "@") {
		return message.ParseAddress(s)
	}
	a := message.Address{User: s}
	return a, a.Validate()
}

func writeJSON(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The peer may have gone: then nobody is left to be told.
	_ = json.NewEncoder(w).Encode(document)
}
