//go:build process || cluster

package main_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// books are what accounts and CDRs must come to.
type books struct {
	accounts int
	balance  plugin.Money // of each account, before anything was sent
	messages int          // at least: all that were accepted
	most     int          // that many if each that was sent anew is there twice: it is two messages then
}

// price is that of every message in these tests.
const price = plugin.Unit / 100

// checkMoney compares balances and CDRs with the number of messages, once all
// of them are paid for.
func checkMoney(t *testing.T, s *server, want books) {
	t.Helper()
	cdrs := settled(t, s, want.messages)
	if len(cdrs) < want.messages || len(cdrs) > want.most {
		t.Errorf("%d CDRs, want %d to %d", len(cdrs), want.messages, want.most)
	}
	charged := chargedBy(t, cdrs)
	checkBalances(t, s, want, charged)
}

// settled returns the CDRs, once there are enough.
func settled(t *testing.T, s *server, enough int) []map[string]string {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		cdrs := table(t, s.imgate("cdr", "export", "--output", "csv"))
		if len(cdrs) >= enough || time.Now().After(deadline) {
			return cdrs
		}
		time.Sleep(50 * time.Millisecond) // settling follows delivery, in another process
	}
}

// chargedBy adds up what CDRs charge, one for each message.
func chargedBy(t *testing.T, cdrs []map[string]string) (charged plugin.Money) {
	t.Helper()
	ids := map[string]bool{}
	for _, cdr := range cdrs {
		if ids[cdr["id"]] {
			t.Errorf("message %s has two CDRs", cdr["id"])
		}
		ids[cdr["id"]] = true
		amount, err := plugin.ParseMoney(cdr["amount"])
		if err != nil || amount != price {
			t.Errorf("a message is charged %q, want %s", cdr["amount"], price)
		}
		charged += amount
	}
	return charged
}

func checkBalances(t *testing.T, s *server, want books, charged plugin.Money) {
	t.Helper()
	var accounts []struct {
		AOR      string       `json:"aor"`
		Balance  plugin.Money `json:"balance"`
		Reserved plugin.Money `json:"reserved"`
	}
	if err := json.Unmarshal([]byte(s.imgate("account", "list", "--output", "json")), &accounts); err != nil {
		t.Fatal(err)
	}
	if len(accounts) != want.accounts {
		t.Errorf("%d accounts, want %d", len(accounts), want.accounts)
	}
	left := plugin.Money(0)
	for _, account := range accounts {
		left += account.Balance
		if account.Reserved != 0 {
			t.Errorf("%s still has %s held", account.AOR, account.Reserved)
		}
	}
	if all := plugin.Money(len(accounts)) * want.balance; left != all-charged {
		t.Errorf("the balances add up to %s, want %s", left, all-charged)
	}
}
