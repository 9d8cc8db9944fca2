package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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
		if used := len(line) - flags.NArg(); used > 0 && line[used-1] == "--" {
			return append(args, flags.Args()...), nil
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
	wrong := filepath.Join(t.TempDir(), "wrong.csv")
	secret := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{wrong: "aor,password,balance\nnobody,x,1\n", secret: "from a file\r\nnot this\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line string
		want string // is part of what is printed
		err  string // is part of the error
	}{
		{"account add 1001@sip.example.com --password secret --balance 10.00", "added 1001@sip.example.com with a balance of 10.00\n", ""},
		{"account add --password secret 1001@sip.example.com", "", "exists already"},
		{"account add 1002@sip.example.com --identity info@sip.example.com --identity +15550102", "password: ", ""},
		{"account add 1005@sip.example.com --password-file " + secret + " --attribute plan=gold --attribute note= --output json", `"note": ""`, ""},
		{"account add 1006@sip.example.com --output json", `"password": "`, ""},
		{"account add 1007@sip.example.com --password-file /nowhere", "", "no such file"},
		{"account add", "", "usage: expected one address"},
		{"account add 1009", "", "usage: \"1009\": not an address: expected user@domain"},
		{"account add 1009@sip.example.com --balance much", "", "usage: balance: not an amount"},
		{"account add 1009@sip.example.com --password x --password-file y", "", "usage: expected either"},
		{"account add 1009@sip.example.com --attribute plan", "", "expected name=value"},
		{"account credit 1001@sip.example.com 2.50", "1001@sip.example.com now has a balance of 12.50\n", ""},
		{"account credit 1001@sip.example.com 2.50 --key night", "1001@sip.example.com now has a balance of 15.00\n", ""},
		{"account credit 1001@sip.example.com 2.50 --key night", "1001@sip.example.com was credited under this key before and has a balance of 15.00\n", ""},
		{"account credit 1001@sip.example.com 3.50 --key night", "", "used for another amount: 2.50"},
		{"account credit 1001@sip.example.com -- -2.50", "has a balance of 12.50\n", ""},
		{"account credit 1001@sip.example.com", "", "usage: expected an address and an amount"},
		{"account credit 1001@sip.example.com much", "", "usage: amount: not an amount"},
		{"account credit 1001 1.00", "", "usage: \"1001\": not an address"},
		{"account credit 1009@sip.example.com 1.00", "", "no such account"},
		{"account import " + file, "imported 1 accounts\n", ""},
		{"account import -", "imported 1 accounts\n", ""},
		{"account import", "", "usage: expected one file"},
		{"account import /nowhere/at/all.csv", "", "no such file"},
		{"account import " + wrong, "", "nothing was imported:\n" + wrong + ":2: aor: not an address"},
		{"account import - --output json", "", "nothing was imported:\nstandard input:2: the account 1004@sip.example.com exists already"},
		{"account list", "1004@sip.example.com  4.50", ""},
		{"account list", "sales@sip.example.com +15550104", ""},
		{"account list --output json", `{"aor":"1002@sip.example.com","balance":"0.00","reserved":"0.00","identities":["info@sip.example.com","+15550102"],`, ""},
		{"account list --output xml", "", "expected table or json"},
		{"account list foo", "", "usage: unexpected \"foo\""},
		{"account list --balance-below x", "", "not an amount"},
		{"account list --suspended --active", "", "usage: expected either --suspended or --active"},
		{"account show 1005@sip.example.com", "attributes  note=; plan=gold\n", ""},
		{"account show 1005@sip.example.com --output json", `"plan": "gold"`, ""},
		{"account show 1009@sip.example.com", "", "no such account"},
		{"account show", "", "usage: expected one address, for example: account show"},
		{"account suspend 1005@sip.example.com", "1005@sip.example.com is suspended\n", ""},
		{"account show 1005@sip.example.com", "state       suspended\n", ""},
		{"account list --suspended --output json", "[\n{\"aor\":\"1005@sip.example.com\"", ""},
		{"account list --domain nowhere.example --output json", "[]\n", ""},
		{"account resume 1005@sip.example.com", "1005@sip.example.com is active\n", ""},
		{"account suspend 1009@sip.example.com", "", "no such account"},
		{"account delete 1005@sip.example.com", "deleted 1005@sip.example.com with a balance of 0.00\n", ""},
		{"account delete 1005@sip.example.com", "", "no such account"},
		{"account delete 1001@sip.example.com", "", "force"},
		{"account delete 1001@sip.example.com --force", "deleted 1001@sip.example.com with a balance of 12.50\n", ""},
		{"account delete", "", "usage: expected one address"},
		{"cdr export", "id,payer,from,", ""},
		{"cdr export --output json --account 1001@sip.example.com", "[]\n", ""},
		{"cdr export --output table", "", "expected csv or json"},
		{"cdr export --from yesterday", "", "usage: --from: expected a time"},
		{"cdr export --to tomorrow", "", "usage: --to: expected a time"},
		{"cdr export --account me", "", "usage: \"me\": not an address"},
		{"cdr export everything", "", "usage: unexpected \"everything\""},
	} {
		t.Run(c.line, func(t *testing.T) {
			out, err := runCommand(t, n, strings.NewReader(stdin), strings.Fields(c.line)...)
			if c.err != "" {
				if _, usage := errors.AsType[plugin.ErrUsage](err); usage {
					err = fmt.Errorf("usage: %w", err)
				}
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `\"`, `"`), c.err) || strings.HasPrefix(err.Error(), "usage: ") != strings.HasPrefix(c.err, "usage: ") {
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

func TestPasswordComesFromWhereItIsSaid(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	t.Setenv(passwordVariable, "of the environment")
	for _, c := range []struct{ aor, flags, in, want string }{
		{"1001@sip.example.com", "", "", "of the environment"},
		{"1002@sip.example.com", "--password given", "", "given"},
		{"1003@sip.example.com", "--password-file -", "piped\n", "piped"},
	} {
		out, err := runCommand(t, n, strings.NewReader(c.in), strings.Fields("account add "+c.aor+" "+c.flags)...)
		if err != nil || strings.Contains(out, "password") {
			t.Errorf("%s: %v, printed %q", c.aor, err, out)
		}
		proof := plugin.Credentials{Password: &plugin.Password{SystemID: c.aor, Password: c.want}}
		if _, err := n.accounts.Verify(t.Context(), proof); err != nil {
			t.Errorf("%s: %q: %v", c.aor, c.want, err)
		}
	}
}

func TestListFilters(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	for _, e := range []entry{
		{AOR: "10@a.example", Balance: "1"}, {AOR: "100@a.example", Balance: "2"}, {AOR: "100@b.example", Balance: "3"},
		{AOR: "11@a.example", Balance: "4"}, {AOR: "\u00ff@a.example"},
	} {
		e.Password = "x"
		n.add(t, e)
	}
	for _, aor := range []string{"10@a.example", "100@b.example"} {
		if err := n.Call(t.Context(), "POST", accountPath(aor, "/suspend"), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ flags, want string }{
		{"", "100@a.example 100@b.example 10@a.example 11@a.example \u00ff@a.example"},
		{"--domain A.example", "100@a.example 10@a.example 11@a.example \u00ff@a.example"},
		{"--prefix 10", "100@a.example 100@b.example 10@a.example"},
		{"--prefix 100 --domain b.example", "100@b.example"},
		{"--prefix \u00ff", "\u00ff@a.example"},
		{"--suspended", "100@b.example 10@a.example"},
		{"--active --balance-below 3", "100@a.example \u00ff@a.example"},
		{"--balance-below 0", ""},
		{"--prefix 9", ""},
	} {
		out, err := runCommand(t, n, nil, strings.Fields("account list --output json "+c.flags)...)
		var accounts []accountView
		if err := errors.Join(err, json.Unmarshal([]byte(out), &accounts)); err != nil {
			t.Errorf("%s: %v", c.flags, err)
		}
		var got []string
		for _, a := range accounts {
			got = append(got, a.AOR)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.flags, got, c.want)
		}
	}
}

// Pages of every size hold all accounts once, in order, whatever is filtered.
func TestPagesAreComplete(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	importMany(t, n, 2*pageSize+7)
	for _, c := range []struct {
		query string
		want  int
	}{
		{"limit=1000", 2*pageSize + 7}, {"limit=333", 2*pageSize + 7},
		{"limit=333&prefix=1", 1111}, {"limit=7&domain=many.example&prefix=20", 1 + 10 + 7},
		{"limit=1000&balance_below=10", 0},
	} {
		got, last, next := 0, "", ""
		for {
			page, err := n.page(t, c.query+"&after="+next)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page.Accounts {
				if a.AOR <= last {
					t.Errorf("%s: %s comes after %s", c.query, a.AOR, last)
				}
				got, last = got+1, a.AOR
			}
			if next = page.Next; next == "" {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: got %d accounts, want %d", c.query, got, c.want)
		}
	}
	if page, err := n.page(t, "prefix=1&after=2"); err != nil || len(page.Accounts) > 0 || page.Next != "" {
		t.Errorf("behind all of a prefix: %v, %v", page, err)
	}
}

func (n *node) page(t *testing.T, query string) (page accountPage, err error) {
	return page, n.Call(t.Context(), "GET", "/v1/accounts?"+query, nil, &page)
}

// A page looks at a bounded number of accounts and says where to go on.
func TestPageOfRareAccountsIsBounded(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	importMany(t, n, maxLooked+1000)
	page, err := n.page(t, "balance_below=1")
	if err != nil || len(page.Accounts) > 0 || page.Next == "" {
		t.Errorf("got %d accounts, next %q, %v; want none, and a next page", len(page.Accounts), page.Next, err)
	}
	page, err = n.page(t, "balance_below=1&after="+page.Next)
	if err != nil || len(page.Accounts) > 0 || page.Next != "" {
		t.Errorf("got %d accounts, next %q, %v; want the end", len(page.Accounts), page.Next, err)
	}
}

func TestProgress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accounts.csv")
	if err := os.WriteFile(file, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out bytes.Buffer
	body, end := withProgress(in, &out)
	end()
	if body != io.Reader(in) || out.Len() > 0 {
		t.Errorf("without a terminal there is a bar: %q", out.String())
	}
	n, err := io.Copy(io.Discard, progressReader{io.MultiReader(in, strings.NewReader("grown")), newProgress(&out, sizeOf(in))})
	if err != nil || n != 1005 || !strings.Contains(out.String(), "sending 100%") {
		t.Errorf("read %d, %v, drawn %q", n, err, out.String())
	}
	if size := sizeOf(strings.NewReader("x")); size != 0 {
		t.Errorf("standard input has %d octets", size)
	}
}
