package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// pageOfMessages is how many messages are asked for at once.
const pageOfMessages = 500

func messageCommand(load *source) *cobra.Command {
	group := newGroup("message")
	group.Short = "look at messages, and take them in hand"
	group.AddCommand(
		messageListCommand(load), messageShowCommand(load),
		messageChangeCommand(load, change{
			verb: "cancel", done: "cancelled", short: "end messages that aren't delivered yet; who paid gets it back",
		}),
		messageChangeCommand(load, change{
			verb: "requeue", done: "requeued", short: "try messages again now that wait or are in quarantine, or send what is scheduled",
		}),
	)
	return group
}

// messageFilter says which messages are meant.
type messageFilter struct {
	state                        *choice
	from, to, service, transport string
}

func addMessageFilter(command *cobra.Command) *messageFilter {
	f := &messageFilter{}
	f.state = addChoice(command, "state", "", "only messages in this state", messageStates()...)
	flags := command.Flags()
	flags.StringVar(&f.from, "from", "", "only messages from this `ADDRESS`")
	flags.StringVar(&f.to, "to", "", "only messages to this `ADDRESS`, before or after a policy rewrote it")
	flags.StringVar(&f.service, "service", "", "only messages that this `SERVICE` decided on")
	flags.StringVar(&f.transport, "transport", "", "only messages that came in through this `INSTANCE`")
	return f
}

// messageStates are the words for --state.
func messageStates() []string {
	var states []string
	for _, name := range spool.MessageStates {
		states = append(states, string(name))
	}
	return states
}

func (f *messageFilter) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"state": f.state.value, "from": f.from, "to": f.to, "service": f.service, "transport": f.transport,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// eachPage reads at most limit messages, page by page; 0: all. It tells
// whether there are more.
func (f *messageFilter) eachPage(ctx context.Context, admin plugin.AdminClient, limit int, each func([]spool.Summary) error) (more bool, err error) {
	query := f.query()
	for left := limit; ; {
		size := pageOfMessages
		if limit > 0 {
			size = min(size, left)
		}
		query.Set("limit", strconv.Itoa(size))
		var page struct {
			Messages []spool.Summary `json:"messages"`
			Next     string          `json:"next"`
		}
		if err := admin.Call(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, &page); err != nil {
			return false, err
		}
		if err := each(page.Messages); err != nil {
			return false, err
		}
		left -= len(page.Messages)
		if page.Next == "" || limit > 0 && left <= 0 {
			return page.Next != "", nil
		}
		query.Set("after", page.Next)
	}
}

func messageListCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "list",
		Short: "list messages, the oldest first",
		Long: "Lists messages, the oldest first: those that are under way, and those that ended and are still\n" +
			"within their retention. What a message says is never shown.",
		Args: cobra.NoArgs,
	}
	filter := addMessageFilter(command)
	output := addOutput(command)
	limit := command.Flags().Int("limit", 100, "at most `N` messages; 0: all")
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, _ []string) error {
		if *limit < 0 {
			return plugin.Usage("--limit %d: expected 0 or more", *limit)
		}
		more, err := filter.eachPage(cmd.Context(), admin, *limit, printMessages(cmd.OutOrStdout(), output.value))
		if err == nil && more {
			fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d: --limit 0 lists all\n", *limit)
		}
		return err
	})
	return command
}

// printMessages returns what prints a page. Pages are aligned one by one, so
// that a long list needs no memory.
func printMessages(out io.Writer, form string) func([]spool.Summary) error {
	if form == asJSON {
		return func(messages []spool.Summary) error {
			for _, m := range messages {
				if err := printJSON(out, m); err != nil {
					return err
				}
			}
			return nil
		}
	}
	table := newTable(out)
	row(table, "ID", "STATE", "FROM", "TO", "SERVICE", "RECEIVED", "ATTEMPTS", "REASON")
	return func(messages []spool.Summary) error {
		for _, m := range messages {
			row(table, m.ID.String(), string(m.State), m.From.String(), m.To.String(), shownService(&m),
				shownTime(m.Received), strconv.Itoa(m.Attempts), string(m.Reason))
		}
		return table.Flush()
	}
}

// shownService is the service that has decided on a message. None has on a receipt
// for a sender; what it decided on has one more line for each copy.
func shownService(m *spool.Summary) string {
	if m.Type == message.TypeReceipt {
		return "(receipt)"
	}
	if m.Device != "" {
		return m.Service + " (copy)"
	}
	return m.Service
}

func messageShowCommand(load *source) *cobra.Command {
	command := &cobra.Command{
		Use:   "show ID",
		Short: "show all that is known of a message, but not what it says",
		Args:  cobra.ExactArgs(1),
	}
	output := addOutput(command)
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, args []string) error {
		var m spool.Summary
		if err := admin.Call(cmd.Context(), http.MethodGet, messagePath(args[0]), nil, &m); err != nil {
			return err
		}
		if output.value == asJSON {
			return printJSON(cmd.OutOrStdout(), m)
		}
		return printMessage(cmd.OutOrStdout(), m)
	})
	return command
}

func messagePath(id string) string { return "/v1/messages/" + url.PathEscape(id) }

func printMessage(out io.Writer, m spool.Summary) error {
	table := newTable(out)
	for _, field := range [][2]string{
		{"ID", m.ID.String()}, {"public ID", m.PublicID}, {"state", string(m.State)}, {"reason", string(m.Reason)},
		{"from", m.From.String()}, {"to", m.To.String()}, {"sent as", m.SentAs.String()}, {"came for", m.OriginalTo.String()}, {"type", m.Type}, {"size", grouped(int64(m.Size)) + " octets"}, {"missing parts", countOrNone(m.Missing)},
		{"came in through", m.Transport}, {"from peer", m.Peer}, {"from account", m.Account},
		{"service", m.Service}, {"policy revision", m.Revision},
		{"received", shownTime(m.Received)}, {"kept until", shownTime(m.Expiry)},
		{"attempts", grouped(int64(m.Attempts))}, {"next attempt", shownTime(m.Next)}, {"ended", shownTime(m.Ended)},
	} {
		row(table, field[0], field[1])
	}
	if m.Device != "" {
		row(table, "copy for", m.Device)
		row(table, "copy of", m.CopyOf.String())
	}
	for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
		row(table, "label "+name, m.Labels[name])
	}
	if len(m.Deliveries) > 0 {
		fmt.Fprintln(table)
		row(table, "DELIVERY THROUGH", "DEVICE", "STATE", "REASON", "NAMED THERE")
	}
	for _, d := range m.Deliveries {
		row(table, d.Transport, d.Device, string(d.State), string(d.Reason), strings.Join(d.PeerIDs, " "))
	}
	return table.Flush()
}

// countOrNone is a number that is shown if it isn't 0.
func countOrNone(n int) string {
	if n == 0 {
		return ""
	}
	return grouped(int64(n))
}

// change is what an operator can do to a message: the last word of its route,
// and what to say when it is done.
type change struct{ verb, done, short string }

func messageChangeCommand(load *source, what change) *cobra.Command {
	command := &cobra.Command{
		Use:   what.verb + " {ID... | --state STATE --all}",
		Short: what.short,
		Example: "  imgate message " + what.verb + " 01890a5d-ac96-774b-bcce-b302099a8057\n" +
			"  imgate message " + what.verb + " --state quarantined --to 1001@sip.example.com --all",
		DisableFlagsInUseLine: true,
	}
	filter := addMessageFilter(command)
	all := command.Flags().Bool("all", false, "all messages that the other flags name; --state is one of them")
	yes := command.Flags().Bool("yes", false, "don't ask")
	command.RunE = withAdmin(load, func(cmd *cobra.Command, admin *client, args []string) error {
		if err := checkChosen(filter, *all, args); err != nil {
			return err
		}
		if *all {
			ids, err := filter.ids(cmd.Context(), admin)
			if err != nil {
				return err
			}
			if agreed, err := agree(cmd, what, len(ids), *yes); err != nil || !agreed {
				return err
			}
			args = ids
		}
		return what.each(cmd, admin, args)
	})
	return command
}

// checkChosen refuses what doesn't say clearly which messages are meant.
func checkChosen(filter *messageFilter, all bool, ids []string) error {
	switch {
	case all && len(ids) > 0:
		return plugin.Usage("expected either IDs or --all")
	case all && filter.state.value == "":
		return plugin.Usage("--all needs --state: which messages are meant?")
	case !all && len(filter.query()) > 0:
		return plugin.Usage("expected --all with the flags that say which messages are meant")
	case !all && len(ids) == 0:
		return plugin.Usage("expected the ID of a message, or --state and --all")
	}
	return nil
}

func (f *messageFilter) ids(ctx context.Context, admin plugin.AdminClient) (ids []string, err error) {
	_, err = f.eachPage(ctx, admin, 0, func(messages []spool.Summary) error {
		for _, m := range messages {
			ids = append(ids, m.ID.String())
		}
		return nil
	})
	return ids, err
}

// agree asks the person at the terminal. Nobody there to be asked is an error.
func agree(cmd *cobra.Command, what change, messages int, yes bool) (bool, error) {
	switch {
	case messages == 0:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no such messages")
		return false, err
	case yes:
		return true, nil
	case !isTerminal(cmd.InOrStdin()):
		return false, plugin.Usage("nobody is there to be asked whether to %s %s messages: say --yes", what.verb, grouped(int64(messages)))
	}
	return confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), fmt.Sprintf("%s %s messages?", what.verb, grouped(int64(messages))))
}

// isTerminal tells whether a stream is one that a person sits at.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// confirm takes only "y" and "yes" for a yes.
func confirm(in io.Reader, out io.Writer, question string) (bool, error) {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(in, 80)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	fmt.Fprintln(out, "nothing was done")
	return false, nil
}

// each changes one message after the other and says what became of it. What
// the server says of one message doesn't keep it from the others; that it
// doesn't answer, or is no longer the active one, does.
func (c change) each(cmd *cobra.Command, admin plugin.AdminClient, ids []string) error {
	failed := 0
	for n, id := range ids {
		err := admin.Call(cmd.Context(), http.MethodPost, messagePath(id)+"/"+c.verb, nil, nil)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", printable(id), c.done)
			continue
		}
		if !concernsOne(err) {
			return fmt.Errorf("%s, after %d of %d messages: %w", c.verb, n, len(ids), err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: not %s: %v\n", printable(id), c.done, err)
		failed++
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d messages could not be %s", failed, len(ids), c.done)
	}
	return nil
}

// concernsOne tells whether an error is about the message that was asked for,
// and not about the server.
func concernsOne(err error) bool {
	refused, ok := errors.AsType[*apiError](err)
	return ok && refused.status < http.StatusInternalServerError && refused.status != http.StatusUnauthorized
}
