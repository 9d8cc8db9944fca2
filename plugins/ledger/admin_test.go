package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestAdminAnswers(t *testing.T) {
	const one = `{"aor":"one@a.example","password":"x","balance":"1.00","identities":["uno@a.example","+1555"],"attributes":{"plan":"gold"}}`
	const shown = `{"aor":"one@a.example","balance":"1.00","reserved":"0.00","identities":["uno@a.example","+1555"],"attributes":{"plan":"gold"},"suspended":false,"created":"20`
	n := openNode(t, plugintest.NewTables())
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"add", "POST", "/v1/accounts", one, 201, shown},
		{"add again", "POST", "/v1/accounts", one, 409, `{"error":"the account one@a.example exists already"}`},
		{"add with another's identity", "POST", "/v1/accounts", `{"aor":"two@a.example","password":"x","identities":["uno@a.example"]}`, 409, `uno@a.example belongs to the account one@a.example`},
		{"add with another's identity as address", "POST", "/v1/accounts", `{"aor":"uno@a.example","password":"x"}`, 409, `uno@a.example belongs to`},
		{"add without anything", "POST", "/v1/accounts", `{}`, 400, `aor: not an address: expected user@domain, for example 1001@sip.example.com\npassword: expected one`},
		{"add with a colon", "POST", "/v1/accounts", `{"aor":"a:b@a.example","password":"x"}`, 400, `aor: a colon`},
		{"add with a long password", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"` + strings.Repeat("x", 129) + `"}`, 400, `password: longer than 128 octets`},
		{"add with a strange password", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x\u0000"}`, 400, `password: control characters`},
		{"add with debts", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","balance":"-1"}`, 400, `balance: expected an amount from 0 to 2305843009.213693952`},
		{"add with a wrong balance", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","balance":"1,00"}`, 400, `balance: not an amount: expected a decimal number such as 10.00`},
		{"add with a number as balance", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","balance":1.5}`, 400, `balance: expected a string, not a number`},
		{"add with a wrong identity", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","identities":["he llo"]}`, 400, `identities: \"he llo\" is neither user@domain nor a telephone number`},
		{"add with one identity", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","identities":"hello"}`, 400, `identities: expected an array, not a string`},
		{"add with too many identities", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","identities":["1"` + strings.Repeat(`,"1"`, 64) + `]}`, 400, `identities: more than 64`},
		{"add with a wrong attribute", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","attributes":{"a b":"c"}}`, 400, `attributes: \"a b\" is no name: expected`},
		{"add with a number as attribute", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","attributes":{"a":1}}`, 400, `expected a string, not a number`},
		{"add with a list of attributes", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","attributes":[]}`, 400, `attributes: expected an object, not an array`},
		{"add with a long attribute", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","attributes":{"a":"` + strings.Repeat("x", 257) + `"}}`, 400, `attributes: a is longer than 256 octets`},
		{"add with an unknown key", "POST", "/v1/accounts", `{"aor":"b@a.example","pasword":"x"}`, 400, `expected an object {\"aor\", \"password\", \"balance\", \"identities\", \"attributes\"}: unknown field \"pasword\"`},
		{"add a list", "POST", "/v1/accounts", `[]`, 400, `{"error":"expected an object {\"aor\", \"password\", \"balance\", \"identities\", \"attributes\"}, not an array"}`},
		{"add text", "POST", "/v1/accounts", `hello`, 400, `expected an object {`},
		{"add nothing", "POST", "/v1/accounts", ``, 400, `not an empty body`},
		{"add two at once", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x"}{}`, 400, `and nothing behind it`},
		{"add too much", "POST", "/v1/accounts", `{"aor":"` + strings.Repeat("x", maxEntryBody) + `"}`, 413, `too large`},
		{"add with a parameter", "POST", "/v1/accounts?force=true", one, 400, `unknown parameter \"force\"`},
		{"show", "GET", "/v1/accounts/one@a.example", ``, 200, shown},
		{"show by domain in capitals", "GET", "/v1/accounts/one@A.EXAMPLE", ``, 200, shown},
		{"show nobody", "GET", "/v1/accounts/nobody@a.example", ``, 404, `there is no such account`},
		{"show an identity", "GET", "/v1/accounts/uno@a.example", ``, 404, `there is no such account`},
		{"show nonsense", "GET", "/v1/accounts/one", ``, 400, `\"one\": not an address: expected user@domain`},
		{"credit", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"0.000000001"}`, 200, `"balance":"1.000000001"`},
		{"take back", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"-0.000000001"}`, 200, `"balance":"1.00"`},
		{"take back too much", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"-1.01"}`, 409, `less available than is to be taken back`},
		{"credit nobody", "POST", "/v1/accounts/nobody@a.example/credit", `{"amount":"1"}`, 404, `no such account`},
		{"credit nothing", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"0"}`, 400, `that isn't zero`},
		{"credit something", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"much"}`, 400, `amount: not an amount`},
		{"credit too much", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"2305843009"}`, 409, `more than can be counted`},
		{"credit beyond counting", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"-2305843010"}`, 400, `expected one from`},
		{"credit with a long key", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"1","key":"` + strings.Repeat("x", 129) + `"}`, 400, `key: expected up to 128`},
		{"credit with a strange key", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"1","key":"ä"}`, 400, `key: expected up to 128`},
		{"credit with a key", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"1","key":"k1"}`, 200, `"balance":"2.00"`},
		{"credit with a key again", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"1.00","key":"k1"}`, 200, `"repeated":true`},
		{"credit with a key for another amount", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"2","key":"k1"}`, 409, `the key was used for another amount: 1.00`},
		{"take back with a key", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"-1","key":"k2"}`, 200, `"balance":"1.00"`},
		{"suspend", "POST", "/v1/accounts/one@a.example/suspend", ``, 200, `"suspended":true`},
		{"suspend again", "POST", "/v1/accounts/one@a.example/suspend", ``, 200, `"suspended":true`},
		{"suspend nobody", "POST", "/v1/accounts/nobody@a.example/suspend", ``, 404, `no such account`},
		{"resume", "POST", "/v1/accounts/one@a.example/resume", ``, 200, `"suspended":false`},
		{"resume nobody", "POST", "/v1/accounts/nobody@a.example/resume", ``, 404, `no such account`},
		{"list", "GET", "/v1/accounts", ``, 200, `{"accounts":[{"aor":"one@a.example",`},
		{"list behind the last", "GET", "/v1/accounts?after=one@a.example", ``, 200, `{"accounts":[],"next":""}`},
		{"list too many", "GET", "/v1/accounts?limit=1001", ``, 400, `limit: expected a number from 1 to 1000`},
		{"list with wrong filters", "GET", "/v1/accounts?suspended=yes&balance_below=x", ``, 400, `suspended: expected true or false\nbalance_below: not an amount`},
		{"list with a wrong parameter", "GET", "/v1/accounts?offset=1", ``, 400, `unknown parameter \"offset\": expected after, limit, domain, prefix, suspended, balance_below`},
		{"delete with money", "DELETE", "/v1/accounts/one@a.example", ``, 409, `balance of 1.00: take it to 0.00 first, or force it (--force)`},
		{"delete half", "DELETE", "/v1/accounts/one@a.example?force=yes", ``, 400, `force: expected true or false`},
		{"delete with force", "DELETE", "/v1/accounts/one@a.example?force=true", ``, 200, shown},
		{"delete again", "DELETE", "/v1/accounts/one@a.example?force=true", ``, 404, `no such account`},
		{"add after deletion", "POST", "/v1/accounts", one, 201, shown},
		{"credit with the key of the deleted one", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"1","key":"k1"}`, 200, `"repeated":false`},
		{"export in a wrong format", "GET", "/v1/cdrs?format=xml", ``, 400, `format: \"xml\" is unknown: expected csv or json`},
		{"export from some time", "GET", "/v1/cdrs?format=csv&from=yesterday", ``, 400, `from: expected a time such as`},
		{"export of nobody", "GET", "/v1/cdrs?account=x", ``, 400, `\"x\": not an address`},
		{"export with a wrong parameter", "GET", "/v1/cdrs?format=csv&acount=x", ``, 400, `unknown parameter`},
		{"import nothing", "POST", "/v1/accounts/import", ``, 400, `the file is empty`},
		{"import with a strange name", "POST", "/v1/accounts/import?file=a%0Ab", ``, 400, `file: expected a name`},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply := n.do(t.Context(), c.method, c.path, c.body)
			if reply.Code != c.status || !strings.Contains(reply.Body.String(), c.want) {
				t.Errorf("got %d %s\nwant %d with %s", reply.Code, reply.Body, c.status, c.want)
			}
			if reply.Code >= 400 && !strings.HasPrefix(reply.Body.String(), `{"error":"`) {
				t.Errorf("got %s, want an error in JSON", reply.Body)
			}
		})
	}
}

// importMany imports accounts 0@many.example and on, with a password "secret"
// and a balance of 10.00 each.
func importMany(t testing.TB, n *node, count int) {
	t.Helper()
	var text bytes.Buffer
	text.WriteString("aor,password,balance\n")
	for i := range count {
		fmt.Fprintf(&text, "%d@many.example,secret,10.00\n", i)
	}
	if reply := n.do(t.Context(), "POST", "/v1/accounts/import", text.String()); reply.Code != http.StatusCreated {
		t.Fatalf("import: %d %s", reply.Code, reply.Body)
	}
}

func TestImportNamesWrongRows(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "old@a.example", Password: "x"})
	for _, c := range []struct {
		name, body string
		status     int
		want       []string
	}{
		{"wrong columns", "aor,balance,colour,balance\n", 400, []string{`line 1: unknown column \"colour\"`, `line 1: the column \"balance\" is there twice`, `line 1: the column \"password\" is missing`}},
		{"broken header", "aor,\"b\"x\n", 400, []string{"line 1: extraneous"}},
		{"no rows", "aor,password,balance\n", 400, []string{"no accounts"}},
		{"wrong rows", "aor,password,balance\na@a.example,x,1\nnobody,x,1\nb@a.example,,x\nc@a.example,x\n", 400, []string{
			"line 3: aor: not an address", `line 4: password: expected one; balance: not an amount`, "line 5: 2 columns, expected 3"}},
		{"broken quotes", "aor,password,balance\nnobody,x,1\n\"a@a.example\"x,x,1\nnobody,x,1\n", 400, []string{"line 2: aor", "line 3: extraneous", "line 4: aor"}},
		{"open quotes", "aor,password,balance\na@a.example,x,1\n\"a@a.example,x,1\nb@a.example,x,1\n", 400, []string{"line 3: extraneous"}},
		{"wrong attributes", "aor,password,balance,attributes\na@a.example,x,1,plan\nb@a.example,x,1,a=1;a=2\n", 400, []string{
			`line 2: attributes: \"plan\": expected name=value`, "line 3: attributes: a is there twice"}},
		{"the same twice", "aor,password,balance\na@a.example,x,1\na@A.example,x,1\n", 400, []string{"line 3: a@a.example is on line 2 already"}},
		{"exists", "aor,password,balance\na@a.example,x,1\nold@a.example,x,1\n", 409, []string{"line 3: the account old@a.example exists already"}},
		{"everything at once", "aor,password,balance\nold@a.example,x,much\na@a.example,x,1\na@a.example,,1\nold@a.example,x,1\n", 400, []string{
			"line 2: balance: not an amount", `\nline 2: the account old@a.example exists already`,
			`\nline 4: password: expected one; a@a.example is on line 3 already`,
			`\nline 5: old@a.example is on line 2 already\nline 5: the account old@a.example exists already`}},
		{"many wrong rows", "aor,password,balance\n" + strings.Repeat("x,x,x\n", 130), 400, []string{"line 101: ", "and 30 more"}},
		{"many rows that exist", "aor,password,balance\n" + strings.Repeat("old@a.example,x,1\n", 80), 400, []string{"line 51: ", "and 59 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, file := range []string{"", "?file=my%20accounts.csv"} {
				reply := n.do(t.Context(), "POST", "/v1/accounts/import"+file, c.body)
				if reply.Code != c.status {
					t.Errorf("got %d %s, want %d", reply.Code, reply.Body, c.status)
				}
				for _, want := range c.want {
					if file != "" {
						want = regexp.MustCompile(`(^|\\n)line (\d+): `).ReplaceAllString(want, "${1}my accounts.csv:$2: ")
					}
					if !strings.Contains(reply.Body.String(), want) {
						t.Errorf("got %s, want %q in it", reply.Body, want)
					}
				}
			}
		})
	}
	if all := n.list(t); len(all) != 1 {
		t.Errorf("the wrong imports left %v", all)
	}
}

func TestImportsComeOneAtATime(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.book.loading <- struct{}{}
	reply := n.do(t.Context(), "POST", "/v1/accounts/import", "aor,password,balance\na@a.example,x,1\n")
	if reply.Code != http.StatusConflict || !strings.Contains(reply.Body.String(), "another import is at work") {
		t.Errorf("got %d %s", reply.Code, reply.Body)
	}
}

func TestImportTakesWhatSpreadsheetsWrite(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	body := "\uFEFFAOR, Balance ,password,identities,Attributes\r\n\"a@A.example\", 1.50 ,\"p,\"\"q\",\"b@a.example; +1555 c@a.example\",\"plan=big one; x=\"\r\n"
	if reply := n.do(t.Context(), "POST", "/v1/accounts/import", body); reply.Code != http.StatusCreated || reply.Body.String() != "{\"imported\":1}\n" {
		t.Fatalf("got %d %s", reply.Code, reply.Body)
	}
	account, err := n.accounts.Verify(t.Context(), plugin.Credentials{Password: &plugin.Password{SystemID: "a", Password: `p,"q`}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(account.Identities); got != "[a@a.example b@a.example +1555 c@a.example]" {
		t.Errorf("got the identities %s", got)
	}
	if got := fmt.Sprint(account.Attributes); got != "map[plan:big one x:]" {
		t.Errorf("got the attributes %s", got)
	}
}

// Whatever fails when accounts are imported: afterwards all are there or none,
// and no rows besides.
func TestImportIsNeverHalfDone(t *testing.T) {
	const accounts = 7_000 // two chunks
	body := string(manyAccounts(accounts))
	commits := eachCrash(t, plugintest.NewTables, func(t *testing.T, disk *plugintest.Tables, n *node) {
		reply := n.do(t.Context(), "POST", "/v1/accounts/import", body)
		kept := len(openNode(t, disk).list(t))
		unsure := reply.Code == http.StatusServiceUnavailable && strings.Contains(reply.Body.String(), "not known whether it is on disk")
		switch {
		case reply.Code == http.StatusCreated && kept == accounts:
		case unsure && (kept == 0 || kept == accounts):
		case reply.Code == http.StatusServiceUnavailable && kept == 0:
		default:
			t.Errorf("answer %d %s, and %d accounts are there", reply.Code, reply.Body, kept)
		}
		rows, err := disk.Scan(t.Context(), tableAccounts, nil, nil, accounts+1)
		if err != nil || len(rows) != kept {
			t.Errorf("%d accounts are there, and %d rows, %v", kept, len(rows), err)
		}
	})
	if commits != 3 {
		t.Errorf("an import of two chunks takes %d commits", commits)
	}
}

// stuckTables never get anything to disk.
type stuckTables struct{ *plugintest.Tables }

type never struct{}

func (never) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (stuckTables) Commit([]plugin.Change) plugin.Commitment { return never{} }

func TestStuckDiskIsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t, stuckTables{plugintest.NewTables()})
		reply := n.do(t.Context(), "POST", "/v1/accounts", `{"aor":"a@a.example","password":"x"}`)
		if reply.Code != http.StatusServiceUnavailable || !strings.Contains(reply.Body.String(), "not known whether it is on disk") {
			t.Errorf("got %d %s", reply.Code, reply.Body)
		}
	})
}

func TestExport(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	n.add(t, entry{AOR: "alice@a.example", Password: "x", Balance: "1"})
	n.add(t, entry{AOR: "bob@a.example", Password: "x", Balance: "1"})
	settleOne := func(id string, payer, received, settled string) {
		t.Helper()
		record := plugin.Record{
			Charged: true, Payer: payer, Destination: "on,net", Units: 2, Service: "default", Transport: "sip",
			From: message.Address{User: payer}, Recipient: message.Address{User: "+1555"},
			Received: at(t, received), Settled: at(t, settled), Reserved: charge{amount: 2 * price, currency: "EUR"}.reserved(),
		}
		record.From, _ = message.ParseAddress(payer)
		var err error
		if record.Key, err = message.ParseID(id); err != nil {
			t.Fatal(err)
		}
		n.settle(t, record)
	}
	settleOne("019b0000-0000-7000-8000-000000000001", "alice@a.example", "2025-12-08T21:50:23.360Z", "2025-12-08T21:50:24Z")
	settleOne("019b0000-0000-7000-8000-000000000002", "bob@a.example", "2025-12-08T21:50:23.360Z", "2025-12-09T00:00:00Z")

	const first = `019b0000-0000-7000-8000-000000000001,alice@a.example,alice@a.example,+1555,"on,net",2,0.02,EUR,default,sip,2025-12-08T21:50:23.360Z,2025-12-08T21:50:24.000Z,true,false` + "\n"
	const second = `019b0000-0000-7000-8000-000000000002,bob@a.example,bob@a.example,+1555,"on,net",2,0.02,EUR,default,sip,2025-12-08T21:50:23.360Z,2025-12-09T00:00:00.000Z,true,false` + "\n"
	const head = "id,payer,from,recipient,destination,units,amount,currency,service,transport,received,settled,late,unpaid\n"
	const line = "[\n" + `{"id":"019b0000-0000-7000-8000-000000000001","payer":"alice@a.example","from":"alice@a.example","recipient":"+1555",` +
		`"destination":"on,net","units":2,"amount":"0.02","currency":"EUR","service":"default","transport":"sip",` +
		`"received":"2025-12-08T21:50:23.360Z","settled":"2025-12-08T21:50:24.000Z","late":true,"unpaid":false}` + "\n]\n"
	for _, c := range []struct{ query, want string }{
		{"format=csv", head + first + second},
		{"format=csv&account=bob@a.example", head + second},
		{"format=csv&to=2025-12-09", head + first},
		{"format=csv&from=2025-12-09", head + second},
		{"format=csv&from=2025-12-09T01:00:00%2B01:00&to=2025-12-10", head + second},
		{"format=csv&from=2025-12-10", head},
		{"format=json&to=2025-12-09", line},
		{"format=json&account=carol@a.example", "[]\n"},
		{"to=2025-12-09", head + first},
	} {
		reply := n.do(t.Context(), "GET", "/v1/cdrs?"+c.query, "")
		if reply.Code != http.StatusOK || reply.Body.String() != c.want {
			t.Errorf("%s: got %d\n%s\nwant\n%s", c.query, reply.Code, reply.Body, c.want)
		}
	}
}

// brokenScan fails to read CDRs.
type brokenScan struct{ *plugintest.Tables }

func (s brokenScan) Scan(ctx context.Context, table string, from, to []byte, n int) ([]plugin.Change, error) {
	if table == tableCDRs {
		return nil, errors.New("the disk is on fire")
	}
	return s.Tables.Scan(ctx, table, from, to, n)
}

func TestBrokenExportBreaksTheConnection(t *testing.T) {
	n := openNode(t, brokenScan{plugintest.NewTables()})
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("got %v, want %v", p, http.ErrAbortHandler)
		}
	}()
	n.do(t.Context(), "GET", "/v1/cdrs?format=csv", "")
}
