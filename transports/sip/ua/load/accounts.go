package load

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// account is a subscriber that sends and receives. It belongs to one endpoint.
type account struct {
	index   int
	aor     string
	domain  string
	contact string // the header's value; the user part is the index
	callID  string // of its registrations
	cseq    int    // of its registrations
	login   login
}

func newAccount(index int, aor, password string) (*account, error) {
	a, err := message.ParseAddress(aor)
	if err != nil {
		return nil, err
	}
	if strings.IndexFunc(a.User, needsEscape) >= 0 {
		return nil, fmt.Errorf("%q: expected letters, digits and -_.+ before the @", aor)
	}
	return &account{
		index: index, aor: a.String(), domain: a.Host,
		login: login{username: a.User, password: password},
	}, nil
}

func needsEscape(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("-_.+", r)
}

// accountsFile reads at most n accounts from a file such as `account import`
// takes: CSV with a header that names the columns aor and password.
func accountsFile(name string, n int) ([]*account, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	accounts, err := readAccounts(file, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return accounts, nil
}

func readAccounts(r io.Reader, n int) ([]*account, error) {
	rows := csv.NewReader(r)
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	aor, password := slices.Index(header, "aor"), slices.Index(header, "password")
	if aor < 0 || password < 0 {
		return nil, errors.New("expected a header line with the columns aor and password")
	}
	var accounts []*account
	for len(accounts) < n {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return accounts, nil
		}
		if err != nil {
			return nil, err
		}
		a, err := newAccount(len(accounts), row[aor], row[password])
		if err != nil {
			line, _ := rows.FieldPos(aor)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
}

// createAccounts makes n accounts on the running server. Their names are new
// in every run: an import refuses accounts that exist.
func createAccounts(ctx context.Context, admin plugin.AdminClient, domain string, n int) ([]*account, error) {
	password, name := rand.Text(), strings.ToLower(rand.Text()[:8])
	var rows strings.Builder
	rows.WriteString("aor,password,balance\n")
	accounts := make([]*account, n)
	for i := range accounts {
		a, err := newAccount(i, fmt.Sprintf("bench-%s-%d@%s", name, i+1, domain), password)
		if err != nil {
			return nil, err
		}
		accounts[i] = a
		fmt.Fprintf(&rows, "%s,%s,1000000.00\n", a.aor, password)
	}
	if err := admin.Stream(ctx, "POST", "/v1/accounts/import", "text/csv", strings.NewReader(rows.String()), io.Discard); err != nil {
		return nil, fmt.Errorf("create %d accounts: %w", n, err)
	}
	return accounts, nil
}
