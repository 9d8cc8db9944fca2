package ledger

import (
	"errors"
	"regexp"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// ceiling bounds every amount in the book: credited, spent, held, and the price
// of a message. Sums and differences of three of them can't overflow.
const ceiling plugin.Money = 1 << 61 // about 2,300 million units of a currency

// ChargingConfig says what an event costs.
type ChargingConfig struct {
	Price plugin.Money `yaml:"price" doc:"what one event costs"`
	// Currency names what balances are counted in. The ledger doesn't convert:
	// changing it renames the money of every account.
	Currency string `yaml:"currency" doc:"what balances are counted in, for the CDRs (ISO 4217)"`
	// Retention counts from when a message was paid for.
	Retention time.Duration `yaml:"retention" doc:"how long CDRs are kept, at least 1h"`
}

// Bounds of ChargingConfig.Retention. The upper one is a hundred years.
const (
	defaultRetention = 90 * 24 * time.Hour
	minRetention     = time.Hour
	maxRetention     = 100 * 365 * 24 * time.Hour
)

var currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)

// Validate refuses prices that can't be taken.
func (c ChargingConfig) Validate() error {
	var wrong []error
	if c.Price < 0 || c.Price > ceiling {
		wrong = append(wrong, &plugin.InvalidKey{Key: "price", Expected: "an amount from 0 to " + ceiling.String() + ", for example 0.01"})
	}
	if !currencyCode.MatchString(c.Currency) {
		wrong = append(wrong, &plugin.InvalidKey{Key: "currency", Expected: `a currency code of ISO 4217 such as "EUR"`})
	}
	if c.Retention < minRetention || c.Retention > maxRetention {
		wrong = append(wrong, &plugin.InvalidKey{Key: "retention", Expected: "a time from 1h to 876000h, for example 2160h"})
	}
	return errors.Join(wrong...)
}

// tariff is what an event costs while the plugin is open.
type tariff struct {
	price    plugin.Money
	currency string
}

// charge returns what so many events cost.
func (t tariff) charge(units int) (charge, error) {
	if units < 1 {
		return charge{}, message.FailForNow(message.ChargingFailed, "%d units: a message is at least one", units)
	}
	if t.price > 0 && plugin.Money(units) > ceiling/t.price {
		return charge{}, message.Fail(message.InsufficientFunds, "%d units cost more than can be counted", units)
	}
	return charge{amount: t.price * plugin.Money(units), currency: t.currency}, nil
}

// charge is an amount that was fixed when a message was authorised. It travels
// in Authorization.Reserved, so that a change of price doesn't touch messages
// that are under way.
type charge struct {
	amount   plugin.Money
	currency string
	serial   uint64 // of the account that is to pay; 0: any of its name
}
