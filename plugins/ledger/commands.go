package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func accountCommands() []plugin.Command {
	return []plugin.Command{
		{Path: "account add", Args: "ADDRESS", Short: "add an account",
			Long: "Adds an account. Without --password one is made and printed.", Setup: setupAdd},
		{Path: "account credit", Args: "ADDRESS AMOUNT", Short: "add to the balance of an account", Setup: setupCredit},
		{Path: "account import", Args: "FILE.csv", Short: "add accounts from a CSV file, all or none",
			Long: "Adds the accounts of a CSV file, all or none. The first line names the columns: aor, password and\n" +
				"balance, in any order, and perhaps identities, separated by spaces or semicolons. - reads standard input.",
			Setup: setupImport},
		{Path: "account list", Short: "list accounts with their balances", Setup: setupList},
	}
}

func cdrCommand() plugin.Command {
	return plugin.Command{Path: "cdr export", Short: "write the records of what was paid for",
		Long: "Writes one record for each message that was paid for, in the order in which they were received:\n" +
			"CSV with a header, or JSON with one object a line. Times are UTC.",
		Setup: setupExport}
}

func setupAdd(flags *flag.FlagSet) plugin.Run {
	var e entry
	flags.StringVar(&e.Password, "password", "", "the `SECRET`; default: one is made and printed")
	flags.StringVar(&e.Balance, "balance", "0.00", "the `AMOUNT` that it starts with")
	flags.Func("identity", "a further `ADDRESS` or number of the account; may be repeated", func(s string) error {
		e.Identities = append(e.Identities, s)
		return nil
	})
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 1 {
			return errors.New("expected one address, for example: account add 1001@sip.example.com")
		}
		e.AOR = in.Args[0]
		made := e.Password == ""
		if made {
			e.Password = newPassword()
		}
		var added listed
		if err := in.Admin.Call(ctx, http.MethodPost, "/v1/accounts", e, &added); err != nil {
			return err
		}
		fmt.Fprintf(in.Out, "added %s with a balance of %s\n", added.AOR, added.Balance)
		if made {
			fmt.Fprintf(in.Out, "password: %s\n", e.Password)
		}
		return nil
	}
}

// newPassword makes a password of 80 random bits that can be typed into a
// telephone.
func newPassword() string { return strings.ToLower(rand.Text()[:16]) }

func setupCredit(*flag.FlagSet) plugin.Run {
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 2 {
			return errors.New("expected an address and an amount, for example: account credit 1001@sip.example.com 10.00")
		}
		path := "/v1/accounts/" + url.PathEscape(in.Args[0]) + "/credit"
		var credited listed
		if err := in.Admin.Call(ctx, http.MethodPost, path, map[string]string{"amount": in.Args[1]}, &credited); err != nil {
			return err
		}
		fmt.Fprintf(in.Out, "%s now has a balance of %s\n", credited.AOR, credited.Balance)
		return nil
	}
}

func setupImport(*flag.FlagSet) plugin.Run {
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 1 {
			return errors.New("expected one file, for example: account import accounts.csv")
		}
		body, closeBody, err := openInput(in)
		if err != nil {
			return err
		}
		defer closeBody()
		var reply bytes.Buffer
		if err := in.Admin.Stream(ctx, http.MethodPost, "/v1/accounts/import", "text/csv", body, &reply); err != nil {
			return err
		}
		var done imported
		if err := json.Unmarshal(reply.Bytes(), &done); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		fmt.Fprintf(in.Out, "imported %d accounts\n", done.Imported)
		return nil
	}
}

func openInput(in plugin.Invocation) (io.Reader, func() error, error) {
	if in.Args[0] == "-" {
		return in.In, func() error { return nil }, nil
	}
	file, err := os.Open(in.Args[0])
	if err != nil {
		return nil, nil, err
	}
	return file, file.Close, nil
}

func setupList(flags *flag.FlagSet) plugin.Run {
	output := flags.String("output", "table", "`FORMAT`: table, or json with one object a line")
	return func(ctx context.Context, in plugin.Invocation) error {
		switch *output {
		case "table":
			return listTable(ctx, in)
		case "json":
			out := json.NewEncoder(in.Out)
			return eachPage(ctx, in.Admin, func(accounts []listed) error {
				for _, a := range accounts {
					if err := out.Encode(a); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return fmt.Errorf("--output %s: expected table or json", *output)
	}
}

// listTable aligns page by page, so that a long list needs no memory.
func listTable(ctx context.Context, in plugin.Invocation) error {
	out := tabwriter.NewWriter(in.Out, 12, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ADDRESS\tBALANCE\tHELD\tIDENTITIES")
	return eachPage(ctx, in.Admin, func(accounts []listed) error {
		for _, a := range accounts {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", a.AOR, a.Balance, a.Held, joined(a.Identities))
		}
		return out.Flush()
	})
}

func joined(identities []message.Address) string {
	var all []string
	for _, identity := range identities {
		all = append(all, identity.String())
	}
	return strings.Join(all, " ")
}

func eachPage(ctx context.Context, admin plugin.AdminClient, each func([]listed) error) error {
	query := url.Values{"limit": {fmt.Sprint(maxPage)}}
	for {
		var p page
		if err := admin.Call(ctx, http.MethodGet, "/v1/accounts?"+query.Encode(), nil, &p); err != nil {
			return err
		}
		if err := each(p.Accounts); err != nil {
			return err
		}
		if p.Next == "" {
			return nil
		}
		query.Set("after", p.Next)
	}
}

func setupExport(flags *flag.FlagSet) plugin.Run {
	format := flags.String("format", "csv", "`FORMAT`: csv, or json with one object a line")
	account := flags.String("account", "", "only what this `ADDRESS` paid for")
	from := flags.String("from", "", "only what was paid for at this `TIME` or later: RFC 3339, or a day")
	to := flags.String("to", "", "only what was paid for before this `TIME`: RFC 3339, or a day")
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) > 0 {
			return fmt.Errorf("unexpected %q: cdr export takes only flags", in.Args[0])
		}
		query := url.Values{"format": {*format}, "account": {*account}, "from": {*from}, "to": {*to}}
		return in.Admin.Stream(ctx, http.MethodGet, "/v1/cdrs?"+query.Encode(), "", nil, in.Out)
	}
}
