// Package ledger keeps the operator's accounts and their money in the gateway's
// own storage: prepaid balances, a price per event, one CDR for each message
// that was paid for. It is two plugins, accounts and charging, over one book.
//
// It knows no protocol beyond the digest of RFC 7616 and nothing of how
// messages travel. It never keeps a password: only what digest needs to check
// one (HA1), which for its realm is worth as much as the password, so the
// storage is to be protected like one.
//
// What is on disk, in tables of its own:
//
//	accounts  by address-of-record: HA1s, identities, attributes, what was credited
//	imports   by number: the imports that are complete
//	spent     by address-of-record: all that was ever paid
//	holds     by message: open reservations
//	credits   by address-of-record and key: credits that must not be repeated
//	cdrs      by message: what was paid for
//
// Credited and spent have rows of their own because they have different
// writers: account operations commit what is credited themselves, what is spent
// goes out with Settle's changes, which the engine commits later. No row is
// written by both, so neither can undo the other. The balance is credited less
// spent, and what may still be reserved is the balance less the open holds.
//
// An account that is deleted may still be named by rows that are on their way
// to the disk, and by messages under way. Each account has a serial of its own,
// which those rows and reservations bear, so nothing of it falls to a later
// account of the same address: what is settled for it then is paid by nobody,
// and its CDR says so.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// Accounts knows the subscribers.
var Accounts = plugin.DefineAccounts("ledger", "accounts in the gateway's own storage",
	AccountsConfig{}, openAccounts).With(accountCommands()...).Showing(sheets()...)

// Charging takes a price per event from prepaid balances.
var Charging = plugin.DefineCharging("ledger", "prepaid balances in the gateway's own storage, a price per event, CDRs",
	ChargingConfig{Price: plugin.Unit / 100, Currency: "EUR", Retention: defaultRetention}, openCharging).With(cdrCommand()).Showing(sheets()...)

// AccountsConfig is what operators can set. Accounts are added with commands or the
// admin API.
type AccountsConfig struct {
	NumberDomains []string `yaml:"number_domains" doc:"domains in which a telephone number is whoever's it is without a domain: NUMBER@sms.example.com is the account that has NUMBER"`
}

// maxNumberDomains bounds what is looked through for each recipient.
const maxNumberDomains = 100

var domainName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// Validate names every domain that is none.
func (c AccountsConfig) Validate() error {
	var wrong []error
	for i, domain := range c.NumberDomains {
		if i == maxNumberDomains {
			wrong = append(wrong, &plugin.InvalidKey{Key: "number_domains", Expected: fmt.Sprintf("at most %d", maxNumberDomains)})
			break
		}
		if !domainName.MatchString(domain) {
			wrong = append(wrong, &plugin.InvalidKey{Key: fmt.Sprintf("number_domains.%d", i), Expected: "a domain, such as sms.example.com"})
		}
	}
	return errors.Join(wrong...)
}

// technology is the name under which the two plugins share their book.
const technology = "ledger"

func openShared(ctx context.Context, env plugin.Env) (*book, error) {
	return plugin.Share(env, technology, func() (*book, error) {
		b, err := openBook(ctx, env.Tables, env.Log, time.Now())
		if err != nil {
			return nil, err
		}
		b.serveAdmin(env.Admin)
		return b, nil
	})
}

type accounts struct {
	book     *book
	domains  []string // where a number is whoever's it is; in lower case
	refusals refusals
	keeper   *housekeeper
}

func openAccounts(ctx context.Context, env plugin.Env, c AccountsConfig) (plugin.Accounts, error) {
	b, err := openShared(ctx, env)
	if err != nil {
		return nil, err
	}
	b.meters.watch(env.Metrics)
	domains := make([]string, len(c.NumberDomains))
	for i, domain := range c.NumberDomains {
		domains[i] = strings.ToLower(domain)
	}
	return &accounts{
		book:     b,
		domains:  domains,
		refusals: newRefusals(env.Metrics, message.Unauthenticated, message.Forbidden),
		keeper:   keepHouse(ctx, env.Log, b.expireCredits),
	}, nil
}

// Verify checks a digest or a password against the book in memory.
func (a *accounts) Verify(_ context.Context, c plugin.Credentials) (plugin.Account, error) {
	found := a.book.verify(c)
	if found == nil {
		return plugin.Account{}, a.refusals.count(message.Fail(message.Unauthenticated, "wrong credentials"))
	}
	if found.suspended.Load() {
		return plugin.Account{}, a.refusals.count(message.Fail(message.Forbidden, "the account is suspended"))
	}
	return found.public(), nil
}

// Lookup finds the account that owns an address, or the number in it.
func (a *accounts) Lookup(_ context.Context, address message.Address) (plugin.Account, error) {
	found := a.book.find(address)
	if found == nil && slices.Contains(a.domains, address.Host) {
		found = a.book.findNumber(address.User)
	}
	if found == nil {
		return plugin.Account{}, message.Fail(message.UnknownRecipient, "no account has this address")
	}
	return found.public(), nil
}

// Close ends the housekeeping; the book is memory.
func (a *accounts) Close() error {
	a.keeper.close()
	return nil
}

type charging struct {
	book     *book
	tariff   tariff
	refusals refusals
	keeper   *housekeeper
}

func openCharging(ctx context.Context, env plugin.Env, c ChargingConfig) (plugin.Charging, error) {
	b, err := openShared(ctx, env)
	if err != nil {
		return nil, err
	}
	b.meters.charge(env.Metrics)
	return &charging{
		book: b, tariff: tariff{price: c.Price, currency: c.Currency},
		refusals: newRefusals(env.Metrics, message.InsufficientFunds, message.Forbidden, message.ChargingFailed),
		keeper: keepHouse(ctx, env.Log, func(ctx context.Context, now time.Time) error {
			return b.expireCDRs(ctx, now.Add(-c.Retention))
		}),
	}, nil
}

// Authorize reserves the price of r.Units events.
func (c *charging) Authorize(_ context.Context, r plugin.Request) (plugin.Authorization, error) {
	a, err := c.book.authorize(time.Now(), c.tariff, r)
	if err != nil {
		return a, c.refusals.count(err)
	}
	return a, nil
}

// Settle pays for what was charged and gives back the rest.
func (c *charging) Settle(ctx context.Context, records []plugin.Record) ([]plugin.Change, error) {
	return c.book.settle(ctx, time.Now(), records)
}

// Close ends the housekeeping; the book is memory.
func (c *charging) Close() error {
	c.keeper.close()
	return nil
}
