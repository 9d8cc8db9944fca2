package ledger

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

func accountCommands() []plugin.Command {
	return []plugin.Command{
		{Path: "account add", Args: "ADDRESS", Short: "add an account", Setup: setupAdd,
			Long: "Adds an account. The password comes from --password-file (- is standard input), from the\n" +
				"environment variable IMGATE_PASSWORD, or from --password, which others on this machine can see in\n" +
				"the list of processes. Without any of them one is made and printed.\n\n" +
				"An ESME binds over SMPP as the part of its address before the @, if no other account has that, or as an\n" +
				"identity without a domain. The attributes smpp.binds, smpp.networks, smpp.senders, smpp.rate and\n" +
				"smpp.window say what it may: see docs/smpp.md."},
		{Path: "account list", Short: "list accounts with their balances", Setup: setupList,
			Long: "Lists accounts in the order of their addresses. An account must satisfy all the flags that are given."},
		{Path: "account show", Args: "ADDRESS", Short: "show an account", Setup: setupShow,
			Long: "Shows an account: balance, what messages under way have reserved, identities, attributes. Never its\n" +
				"password, which isn't kept."},
		{Path: "account credit", Args: "ADDRESS AMOUNT", Short: "add to the balance of an account, or take back", Setup: setupCredit,
			Long: "Adds to the balance of an account. An amount below zero takes back, at most what isn't reserved; write\n" +
				"it behind --, as in: account credit 1001@sip.example.com -- -5.00\n" +
				"With --key the command may be repeated: within a week an account is credited once under one key."},
		{Path: "account suspend", Args: "ADDRESS", Short: "refuse what an account sends", Setup: setupSuspend,
			Long: "Suspends an account: its credentials are refused, so it can neither register nor send, and it pays for\n" +
				"nothing new. Its registrations last until they expire, and messages to it are still delivered. Messages\n" +
				"that were accepted from it before are delivered and paid for. See account resume."},
		{Path: "account resume", Args: "ADDRESS", Short: "undo account suspend", Setup: setupResume},
		{Path: "account delete", Args: "ADDRESS", Short: "delete an account", Setup: setupDelete,
			Long: "Deletes an account and frees its addresses. It is refused while messages under way have reservations or\n" +
				"the balance isn't 0.00, unless --force is given: then the money goes with the account, and messages under\n" +
				"way are delivered; their CDRs say that they are unpaid. CDRs stay until their retention ends."},
		{Path: "account import", Args: "FILE", Short: "add accounts from a CSV file, all or none", Setup: setupImport,
			Long: "Adds the accounts of a CSV file, all or none. The first line names the columns: aor, password and\n" +
				"balance, in any order, and perhaps identities, separated by spaces or semicolons, and attributes, such as\n" +
				"plan=gold;limit=10. - reads standard input. At most a million rows and 256 MiB. What is wrong is said as\n" +
				"FILE:LINE: …, for up to a hundred rows at once."},
	}
}

func cdrCommand() plugin.Command {
	return plugin.Command{Path: "cdr export", Short: "write the records of what was paid for", Setup: setupExport,
		Long: "Writes one record for each message that was paid for, in the order in which the messages were received:\n" +
			"CSV with a header, or a JSON array. Times are UTC. late: settled after the reservation had lapsed.\n" +
			"unpaid: settled after the account had been deleted."}
}

// oneAddress returns the only argument.
func oneAddress(in plugin.Invocation, command string) (string, error) {
	if len(in.Args) != 1 {
		return "", plugin.Usage("expected one address, for example: %s 1001@sip.example.com", command)
	}
	return in.Args[0], checkAddress(in.Args[0])
}

func checkAddress(s string) error {
	if _, err := message.ParseAddress(s); err != nil {
		return plugin.Usage("%q: %w", s, err)
	}
	return nil
}

// accountPath is the path of an account in the admin API, and of what is below.
func accountPath(aor, below string) string { return "/v1/accounts/" + url.PathEscape(aor) + below }

func setupShow(flags *flag.FlagSet) plugin.Run {
	output := tableOrJSON(flags)
	return func(ctx context.Context, in plugin.Invocation) error {
		aor, err := oneAddress(in, "account show")
		if err != nil {
			return err
		}
		var shown accountView
		if err := in.Admin.Call(ctx, http.MethodGet, accountPath(aor, ""), nil, &shown); err != nil {
			return err
		}
		return output.print(in.Out, shown, func() error { return printAccount(in.Out, shown) })
	}
}

func setupCredit(flags *flag.FlagSet) plugin.Run {
	output := tableOrJSON(flags)
	key := flags.String("key", "", "a `NAME` for this credit: repeated under the same name it is done once")
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 2 {
			return plugin.Usage("expected an address and an amount, for example: account credit 1001@sip.example.com 10.00")
		}
		if err := checkAddress(in.Args[0]); err != nil {
			return err
		}
		request := creditRequest{Amount: in.Args[1], Key: *key}
		if _, err := request.credit(in.Args[0], ""); err != nil {
			return plugin.Usage("%w", err)
		}
		var credited creditAnswer
		if err := in.Admin.Call(ctx, http.MethodPost, accountPath(in.Args[0], "/credit"), request, &credited); err != nil {
			return err
		}
		return output.print(in.Out, credited, func() error {
			sentence := "%s now has a balance of %s\n"
			if credited.Repeated {
				sentence = "%s was credited under this key before and has a balance of %s\n"
			}
			_, err := fmt.Fprintf(in.Out, sentence, credited.AOR, credited.Balance)
			return err
		})
	}
}

func setupSuspend(flags *flag.FlagSet) plugin.Run {
	return runSwitch(flags, "suspend", "%s is suspended\n")
}

func setupResume(flags *flag.FlagSet) plugin.Run {
	return runSwitch(flags, "resume", "%s is active\n")
}

// runSwitch is suspend and resume.
func runSwitch(flags *flag.FlagSet, verb, sentence string) plugin.Run {
	output := tableOrJSON(flags)
	return func(ctx context.Context, in plugin.Invocation) error {
		aor, err := oneAddress(in, "account "+verb)
		if err != nil {
			return err
		}
		var changed accountView
		if err := in.Admin.Call(ctx, http.MethodPost, accountPath(aor, "/"+verb), nil, &changed); err != nil {
			return err
		}
		return output.print(in.Out, changed, func() error {
			_, err := fmt.Fprintf(in.Out, sentence, changed.AOR)
			return err
		})
	}
}

func setupDelete(flags *flag.FlagSet) plugin.Run {
	output := tableOrJSON(flags)
	force := flags.Bool("force", false, "also if there is money left, or messages are under way")
	return func(ctx context.Context, in plugin.Invocation) error {
		aor, err := oneAddress(in, "account delete")
		if err != nil {
			return err
		}
		path := accountPath(aor, fmt.Sprintf("?force=%t", *force))
		var deleted accountView
		if err := in.Admin.Call(ctx, http.MethodDelete, path, nil, &deleted); err != nil {
			return err
		}
		return output.print(in.Out, deleted, func() error {
			_, err := fmt.Fprintf(in.Out, "deleted %s with a balance of %s\n", deleted.AOR, deleted.Balance)
			return err
		})
	}
}

func setupExport(flags *flag.FlagSet) plugin.Run {
	output := newOutput(flags, "csv", "json")
	account := flags.String("account", "", "only what this `ADDRESS` paid for")
	from := flags.String("from", "", "only what was paid for at this `TIME` or later: RFC 3339, or a day")
	to := flags.String("to", "", "only what was paid for before this `TIME`: RFC 3339, or a day")
	return func(ctx context.Context, in plugin.Invocation) error {
		if err := noArgs(in, "cdr export"); err != nil {
			return err
		}
		query := url.Values{"format": {output.String()}}
		for name, value := range map[string]string{"account": *account, "from": *from, "to": *to} {
			if value != "" {
				query.Set(name, value)
			}
		}
		if err := checkExport(*account, *from, *to); err != nil {
			return err
		}
		return in.Admin.Stream(ctx, http.MethodGet, "/v1/cdrs?"+query.Encode(), "", nil, in.Out)
	}
}

func checkExport(account, from, to string) error {
	if account != "" {
		if err := checkAddress(account); err != nil {
			return err
		}
	}
	if _, err := readTime("--from", from); err != nil {
		return plugin.Usage("%w", err)
	}
	if _, err := readTime("--to", to); err != nil {
		return plugin.Usage("%w", err)
	}
	return nil
}

func noArgs(in plugin.Invocation, command string) error {
	if len(in.Args) > 0 {
		return plugin.Usage("unexpected %q: %s takes only flags", in.Args[0], command)
	}
	return nil
}
