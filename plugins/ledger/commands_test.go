package ledger

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func newFlagSet() *flag.FlagSet {
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// parseFlags takes flags before and behind arguments, as the imgate command does.
func parseFlags(flags *flag.FlagSet, line []string) ([]string, error) {
	var args []string
	for {
		if err := flags.Parse(line); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return args, nil
		}
		args, line = append(args, flags.Arg(0)), flags.Args()[1:]
	}
}

func TestAccountCommands(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	file := filepath.Join(t.TempDir(), "accounts.csv")
	if err := os.WriteFile(file, []byte("aor,password,balance\n1003@sip.example.com,p3,3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin := "balance,identities,password,aor\n4.5,sales@sip.example.com;+15550104,p4,1004@sip.example.com\n"
	for _, c := range []struct {
		line string
		want string // is part of what is printed
		err  string // is part of the error
	}{
		{"account add 1001@sip.example.com --password secret --balance 10.00", "added 1001@sip.example.com with a balance of 10.00\n", ""},
		{"account add --password secret 1001@sip.example.com", "", "exists already"},
		{"account add 1002@sip.example.com --identity info@sip.example.com --identity +15550102", "password: ", ""},
		{"account add", "", "expected one address"},
		{"account add 1009", "", "expected user@domain"},
		{"account credit 1001@sip.example.com 2.50", "1001@sip.example.com now has a balance of 12.50\n", ""},
		{"account credit 1001@sip.example.com", "", "expected an address and an amount"},
		{"account credit 1009@sip.example.com 1.00", "", "no such account"},
		{"account import " + file, "imported 1 accounts\n", ""},
		{"account import -", "imported 1 accounts\n", ""},
		{"account import", "", "expected one file"},
		{"account import /nowhere/at/all.csv", "", "no such file"},
		{"account list", "1004@sip.example.com  4.50", ""},
		{"account list", "sales@sip.example.com +15550104", ""},
		{"account list --output json", `{"aor":"1002@sip.example.com","balance":"0.00","held":"0.00","identities":["info@sip.example.com","+15550102"]}`, ""},
		{"account list --output xml", "", "expected table or json"},
		{"cdr export", "id,payer,from,", ""},
		{"cdr export --format xml", "", "expected csv or json"},
		{"cdr export everything", "", "takes only flags"},
	} {
		t.Run(c.line, func(t *testing.T) {
			out, err := runCommand(t, n, strings.NewReader(stdin), strings.Fields(c.line)...)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil || !strings.Contains(out, c.want) {
				t.Errorf("got error %v and\n%s\nwant %q in it", err, out, c.want)
			}
		})
	}
}

func TestMadePasswordWorks(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	out, err := runCommand(t, n, nil, "account", "add", "1001@sip.example.com")
	if err != nil {
		t.Fatal(err)
	}
	_, password, _ := strings.Cut(strings.TrimSpace(out), "password: ")
	for _, systemID := range []string{"1001@sip.example.com", "1001"} {
		proof := plugin.Credentials{Password: &plugin.Password{SystemID: systemID, Password: password}}
		if _, err := n.accounts.Verify(t.Context(), proof); err != nil {
			t.Errorf("the printed password %q of %s: %v", password, systemID, err)
		}
	}
}

func TestListReadsEveryPage(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	importMany(t, n, 2*maxPage+1)
	if got := len(n.list(t)); got != 2*maxPage+1 {
		t.Errorf("listed %d accounts, want %d", got, 2*maxPage+1)
	}
}
