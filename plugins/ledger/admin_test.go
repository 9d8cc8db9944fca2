package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func TestAdminAnswers(t *testing.T) {
	const one = `{"aor":"one@a.example","password":"x","balance":"1.00","identities":["uno@a.example","+1555"]}`
	n := openNode(t, plugintest.NewTables())
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"add", "POST", "/v1/accounts", one, 201, `{"aor":"one@a.example","balance":"1.00","held":"0.00","identities":["uno@a.example","+1555"]}`},
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
		{"add with a wrong identity", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","identities":["hello"]}`, 400, `identities: \"hello\" is neither user@domain nor a telephone number`},
		{"add with too many identities", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x","identities":["1"` + strings.Repeat(`,"1"`, 64) + `]}`, 400, `identities: more than 64`},
		{"add with an unknown key", "POST", "/v1/accounts", `{"aor":"b@a.example","pasword":"x"}`, 400, `unknown field \"pasword\"`},
		{"add two at once", "POST", "/v1/accounts", `{"aor":"b@a.example","password":"x"}{}`, 400, `there is more behind it`},
		{"add too much", "POST", "/v1/accounts", `{"aor":"` + strings.Repeat("x", maxEntryBody) + `"}`, 413, `too large`},
		{"credit", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"0.000000001"}`, 200, `"balance":"1.000000001"`},
		{"credit nobody", "POST", "/v1/accounts/nobody@a.example/credit", `{"amount":"1"}`, 404, `no such account`},
		{"credit nothing", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"0"}`, 400, `amount: expected more than 0`},
		{"credit something", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"much"}`, 400, `amount: not an amount`},
		{"credit too much", "POST", "/v1/accounts/one@a.example/credit", `{"amount":"2305843009"}`, 409, `more than can be counted`},
		{"list", "GET", "/v1/accounts", ``, 200, `{"accounts":[{"aor":"one@a.example",`},
		{"list behind the last", "GET", "/v1/accounts?after=one@a.example", ``, 200, `{"accounts":[]}`},
		{"list too many", "GET", "/v1/accounts?limit=1001", ``, 400, `limit: expected a number from 1 to 1000`},
		{"list with a wrong parameter", "GET", "/v1/accounts?offset=1", ``, 400, `unknown parameter \"offset\": expected after, limit`},
		{"export without a format", "GET", "/v1/cdrs", ``, 400, `format: \"\" is unknown: expected csv or json`},
		{"export from some time", "GET", "/v1/cdrs?format=csv&from=yesterday", ``, 400, `from: expected a time such as`},
		{"export with a wrong parameter", "GET", "/v1/cdrs?format=csv&acount=x", ``, 400, `unknown parameter`},
		{"import nothing", "POST", "/v1/accounts/import", ``, 400, `the file is empty`},
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
		{"unknown column", "aor,password,balance,colour\n", 400, []string{`line 1: unknown column \"colour\"`}},
		{"missing column", "aor,balance\n", 400, []string{`line 1: the column \"password\" is missing`}},
		{"column twice", "aor,aor,password,balance\n", 400, []string{`line 1: the column \"aor\" is there twice`}},
		{"no rows", "aor,password,balance\n", 400, []string{"no accounts"}},
		{"wrong rows", "aor,password,balance\na@a.example,x,1\nnobody,x,1\nb@a.example,,x\nc@a.example,x\n", 400, []string{
			"line 3: aor: not an address", `line 4: password: expected one; balance: not an amount`, "line 5: 2 columns, expected 3"}},
		{"broken quotes", "aor,password,balance\nnobody,x,1\n\"a@a.example\"x,x,1\n", 400, []string{"line 2: aor", "line 3: "}},
		{"the same twice", "aor,password,balance\na@a.example,x,1\na@A.example,x,1\n", 409, []string{"line 3: a@a.example is on line 2 already"}},
		{"exists", "aor,password,balance\na@a.example,x,1\nold@a.example,x,1\n", 409, []string{"line 3: the account old@a.example exists already"}},
		{"many wrong rows", "aor,password,balance\n" + strings.Repeat("x,x,x\n", 30), 400, []string{"line 21: ", "and 10 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply := n.do(t.Context(), "POST", "/v1/accounts/import", c.body)
			if reply.Code != c.status {
				t.Errorf("got %d %s, want %d", reply.Code, reply.Body, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(reply.Body.String(), want) {
					t.Errorf("got %s, want %q in it", reply.Body, want)
				}
			}
		})
	}
	if all := n.list(t); len(all) != 1 {
		t.Errorf("the wrong imports left %v", all)
	}
}

func TestImportTakesWhatSpreadsheetsWrite(t *testing.T) {
	n := openNode(t, plugintest.NewTables())
	body := "\uFEFFAOR, Balance ,password,identities\r\n\"a@A.example\", 1.50 ,\"p,\"\"q\",\"b@a.example; +1555 c@a.example\"\r\n"
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
}

// failingTables fail the k-th commit and all that follow, and keep none of
// them, as when a node stops being the active one.
type failingTables struct {
	*plugintest.Tables
	left int
}

type failed struct{}

func (failed) Wait(context.Context) error { return plugin.ErrFenced }

func (f *failingTables) Commit(changes []plugin.Change) plugin.Commitment {
	if f.left == 0 {
		return failed{}
	}
	f.left--
	return f.Tables.Commit(changes)
}

func TestImportIsNeverHalfDone(t *testing.T) {
	const accounts = 20_000 // several chunks
	var body bytes.Buffer
	body.WriteString("aor,password,balance\n")
	for i := range accounts {
		fmt.Fprintf(&body, "%d@many.example,secret,10.00\n", i)
	}
	for k := 0; ; k++ {
		disk := plugintest.NewTables()
		reply := openNode(t, &failingTables{disk, k}).do(t.Context(), "POST", "/v1/accounts/import", body.String())
		kept := len(openNode(t, disk).list(t))
		if reply.Code == http.StatusCreated {
			if kept != accounts || k < 3 {
				t.Errorf("an import of %d commits kept %d accounts", k, kept)
			}
			return
		}
		if reply.Code != http.StatusServiceUnavailable || kept != 0 {
			t.Errorf("commit %d fails: answer %d %s, and %d accounts are there", k+1, reply.Code, reply.Body, kept)
		}
		if rows, _ := disk.Scan(t.Context(), tableAccounts, nil, nil, 1); len(rows) > 0 {
			t.Errorf("commit %d fails: rows were left behind", k+1)
		}
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

	const first = `019b0000-0000-7000-8000-000000000001,alice@a.example,alice@a.example,+1555,"on,net",2,0.02,EUR,default,sip,2025-12-08T21:50:23.360Z,2025-12-08T21:50:24.000Z,true` + "\n"
	const second = `019b0000-0000-7000-8000-000000000002,bob@a.example,bob@a.example,+1555,"on,net",2,0.02,EUR,default,sip,2025-12-08T21:50:23.360Z,2025-12-09T00:00:00.000Z,true` + "\n"
	const head = "id,payer,from,recipient,destination,units,amount,currency,service,transport,received,settled,late\n"
	const line = `{"id":"019b0000-0000-7000-8000-000000000001","payer":"alice@a.example","from":"alice@a.example","recipient":"+1555",` +
		`"destination":"on,net","units":2,"amount":"0.02","currency":"EUR","service":"default","transport":"sip",` +
		`"received":"2025-12-08T21:50:23.360Z","settled":"2025-12-08T21:50:24.000Z","late":true}` + "\n"
	for _, c := range []struct{ query, want string }{
		{"format=csv", head + first + second},
		{"format=csv&account=bob@a.example", head + second},
		{"format=csv&to=2025-12-09", head + first},
		{"format=csv&from=2025-12-09", head + second},
		{"format=csv&from=2025-12-09T01:00:00%2B01:00&to=2025-12-10", head + second},
		{"format=csv&from=2025-12-10", head},
		{"format=json&to=2025-12-09", line},
		{"format=json&account=carol@a.example", ""},
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
