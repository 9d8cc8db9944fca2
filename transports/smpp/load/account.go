package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// login is what an ESME binds with: at most 15 and 8 characters (SMPP 3.4 §4.1.1).
type login struct{ systemID, password string }

// createAccount makes an account on the running server that may send from any
// number and bind so many times. Its name is new in every run: an import refuses
// accounts that exist.
func createAccount(ctx context.Context, admin plugin.AdminClient, binds int) (login, error) {
	l := login{systemID: "bench-" + strings.ToLower(rand.Text()[:8]), password: rand.Text()[:8]}
	rows := fmt.Sprintf("aor,password,balance,attributes\n%s@bench.example.com,%s,100000000.00,smpp.binds=%d;smpp.senders=[+][0-9]*\n", l.systemID, l.password, binds)
	if err := admin.Stream(ctx, "POST", "/v1/accounts/import", "text/csv", strings.NewReader(rows), io.Discard); err != nil {
		return login{}, fmt.Errorf("create an account: %w", err)
	}
	return l, nil
}
