package app

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

const (
	samplesName    = "accounts.txt" // in the data directory
	samplesDomain  = "sip.example.com"
	samplesBalance = 10 * plugin.Unit
	passwordLength = 16
	maxSamples     = 64 << 10 // octets of the file
)

// samples are the accounts that a first run without a configuration creates,
// so that somebody can try it. Their passwords are kept in a file, so that the
// next start can say them again. Until all of them exist the file has another
// name: a start that was interrupted is made good by the next one.
type samples struct {
	path     string
	pending  string // the file's name while accounts are missing; empty: all exist
	accounts []sample
}

type sample struct{ aor, password string }

// openSamples reads the accounts of an earlier start, or thinks of new ones if
// there are no data yet. It returns nil if the data are somebody's own.
func openSamples(dataDir string) (*samples, error) {
	path := filepath.Join(dataDir, samplesName)
	for _, s := range []*samples{{path: path}, {path: path, pending: path + ".new"}} {
		accounts, err := readSamples(s.file())
		if err == nil {
			s.accounts = accounts
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if fresh, err := isFresh(dataDir); !fresh || err != nil {
		return nil, err
	}
	s := newSamples(path)
	return s, s.write()
}

func (s *samples) file() string {
	if s.pending != "" {
		return s.pending
	}
	return s.path
}

func isFresh(dataDir string) (bool, error) {
	directory, err := os.Open(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	defer directory.Close()
	_, err = directory.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	return false, nil
}

func newSamples(path string) *samples {
	s := &samples{path: path, pending: path + ".new"}
	for _, user := range []string{"1001", "1002", "1003"} {
		// Of the letters a to z and the digits 2 to 7: nothing that a shell or a
		// URL would take for something else, and 80 bits.
		password := strings.ToLower(rand.Text()[:passwordLength])
		s.accounts = append(s.accounts, sample{user + "@" + samplesDomain, password})
	}
	return s
}

// readSamples reads lines "aor,password".
func readSamples(path string) ([]sample, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("accounts to try: %w", err)
	}
	defer file.Close()
	lines := csv.NewReader(io.LimitReader(file, maxSamples))
	lines.Comment = '#'
	lines.FieldsPerRecord = 2
	records, err := lines.ReadAll()
	if err == nil && len(records) < 2 {
		err = errors.New("expected two accounts or more")
	}
	if err != nil {
		return nil, fmt.Errorf("accounts to try: %s: %w; remove the file to go without them", path, err)
	}
	accounts := make([]sample, len(records))
	for i, record := range records {
		accounts[i] = sample{record[0], record[1]}
	}
	return accounts, nil
}

// write keeps the accounts before they exist, for their owner's eyes only.
func (s *samples) write() error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var text strings.Builder
	text.WriteString("# Accounts that the first start created: address, password.\n")
	for _, a := range s.accounts {
		fmt.Fprintf(&text, "%s,%s\n", a.aor, a.password)
	}
	if err := os.WriteFile(s.pending, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("accounts to try: %w", err)
	}
	return nil
}

// create makes those accounts that don't exist yet.
func (s *samples) create(ctx context.Context, config engine.Config) error {
	if s.pending == "" {
		return nil
	}
	admin := newClient(config)
	defer admin.close()
	for _, a := range s.accounts {
		account := map[string]any{"aor": a.aor, "password": a.password, "balance": samplesBalance}
		err := admin.Call(ctx, http.MethodPost, "/v1/accounts", account, nil)
		if refused, ok := errors.AsType[*apiError](err); ok && refused.status == http.StatusConflict {
			continue // an interrupted start made it
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.aor, err)
		}
	}
	if err := os.Rename(s.pending, s.path); err != nil {
		return fmt.Errorf("accounts to try: %w", err)
	}
	s.pending = ""
	return nil
}

// writeLines writes what to paste into two more terminals.
func (s *samples) writeLines(out io.Writer, program string) {
	sender, recipient := s.accounts[0], s.accounts[1]
	fmt.Fprintf(out, `
To see it at work, paste this into a second terminal:

      %[1]s listen %[3]s --password %[5]s

and this into a third:

      %[1]s send %[2]s %[3]s "Hello" --password %[4]s

All accounts and passwords: %[6]s
`, program, sender.aor, recipient.aor, sender.password, recipient.password, s.path)
}
