package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// passwordVariable is the environment variable that a password may come in.
const passwordVariable = "IMGATE_PASSWORD"

// addedAccount is what account add prints as JSON.
type addedAccount struct {
	accountView
	Password string `json:"password,omitempty"` // if it was made here
}

func setupAdd(flags *flag.FlagSet) plugin.Run {
	e := entry{Attributes: map[string]string{}}
	output := tableOrJSON(flags)
	file := flags.String("password-file", "", "read the password from the first line of `FILE`; - is standard input")
	flags.StringVar(&e.Password, "password", "", "the `SECRET` itself")
	flags.StringVar(&e.Balance, "balance", "0.00", "the `AMOUNT` that it starts with")
	flags.Func("identity", "a further `ADDRESS`, number or name of the account; may be repeated", func(s string) error {
		e.Identities = append(e.Identities, s)
		return nil
	})
	flags.Func("attribute", "`NAME=VALUE` for the policies, and for SMPP; may be repeated", func(s string) error {
		return setAttribute(e.Attributes, s)
	})
	return func(ctx context.Context, in plugin.Invocation) (err error) {
		if e.AOR, err = oneAddress(in, "account add"); err != nil {
			return err
		}
		var made string
		if e.Password, made, err = choosePassword(in, e, *file); err != nil {
			return err
		}
		if _, err := e.account(); err != nil {
			return plugin.Usage("%w", err)
		}
		added := addedAccount{Password: made}
		if err := in.Admin.Call(ctx, http.MethodPost, "/v1/accounts", e, &added.accountView); err != nil {
			return err
		}
		return output.print(in.Out, added, func() error { return printAdded(in.Out, added) })
	}
}

func printAdded(out io.Writer, added addedAccount) error {
	_, err := fmt.Fprintf(out, "added %s with a balance of %s\n", added.AOR, added.Balance)
	if added.Password == "" {
		return err
	}
	_, printed := fmt.Fprintf(out, "password: %s\n", added.Password)
	return errors.Join(err, printed)
}

// choosePassword returns the password of a new account; made is the same if it
// was made here.
func choosePassword(in plugin.Invocation, e entry, file string) (password, made string, err error) {
	given := e.Password
	switch {
	case given != "" && file != "":
		return "", "", plugin.Usage("expected either --password or --password-file")
	case given != "":
		return given, "", nil
	case file != "":
		password, err = readPassword(in, file)
		return password, "", err
	}
	if password := os.Getenv(passwordVariable); password != "" {
		return password, "", nil
	}
	made = newPassword()
	if e.isSMPP() {
		made = made[:madeBindPassword]
	}
	return made, made, nil
}

// readPassword reads the first line of a file. Further ones may be there.
func readPassword(in plugin.Invocation, name string) (string, error) {
	file, err := openInput(in, name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPassword+2))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// newPassword makes a password of 80 random bits that can be typed into a
// telephone.
func newPassword() string { return strings.ToLower(rand.Text()[:16]) }

// openInput opens a file, or standard input for "-".
func openInput(in plugin.Invocation, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(in.In), nil
	}
	return os.Open(name)
}

func setupList(flags *flag.FlagSet) plugin.Run {
	output := tableOrJSON(flags)
	query := url.Values{}
	filter := func(name, usage string) {
		parameter := strings.ReplaceAll(name, "-", "_")
		flags.Func(name, usage, func(s string) error {
			query.Set(parameter, s)
			return nil
		})
	}
	filter("domain", "only addresses of this `DOMAIN`")
	filter("prefix", "only addresses that begin with `TEXT`")
	suspended := flags.Bool("suspended", false, "only accounts that are suspended")
	active := flags.Bool("active", false, "only accounts that aren't suspended")
	flags.Func("balance-below", "only accounts that have less than this `AMOUNT`", func(s string) error {
		query.Set("balance_below", s)
		_, err := plugin.ParseMoney(s)
		return err
	})
	return func(ctx context.Context, in plugin.Invocation) error {
		if err := noArgs(in, "account list"); err != nil {
			return err
		}
		if *suspended && *active {
			return plugin.Usage("expected either --suspended or --active")
		}
		if *suspended || *active {
			query.Set("suspended", strconv.FormatBool(*suspended))
		}
		return listAccounts(ctx, in, query, output)
	}
}

// listing is how accounts are printed, page by page.
type listing interface {
	page([]accountView) error
	end() error
}

func listAccounts(ctx context.Context, in plugin.Invocation, query url.Values, output *output) error {
	var list listing = accountArray{&jsonArray{out: in.Out}}
	if !output.json() {
		list = newAccountTable(in.Out)
	}
	if err := eachPage(ctx, in.Admin, query, list.page); err != nil {
		return err
	}
	return list.end()
}

func eachPage(ctx context.Context, admin plugin.AdminClient, query url.Values, each func([]accountView) error) error {
	query.Set("limit", fmt.Sprint(maxPage))
	for {
		var page accountPage
		if err := admin.Call(ctx, http.MethodGet, "/v1/accounts?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		if err := each(page.Accounts); err != nil {
			return err
		}
		if page.Next == "" {
			return nil
		}
		query.Set("after", page.Next)
	}
}
