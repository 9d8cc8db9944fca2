package plugin

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Money is an exact amount in nano-units of a currency: 1.00 is
// 1_000_000_000. It reaches to about nine thousand million units.
type Money int64

// Unit is one unit of a currency.
const Unit Money = 1_000_000_000

// ErrBadMoney is what ParseMoney returns; it says what was expected.
var ErrBadMoney = errors.New("not an amount: expected a decimal number such as 10.00, with at most nine decimals")

// ParseMoney reads a decimal number, with or without a sign.
func ParseMoney(s string) (Money, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || len(fraction) > 9 || point && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return 0, ErrBadMoney
	}
	units, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || units > math.MaxInt64/int64(Unit)-1 {
		return 0, ErrBadMoney
	}
	nano, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return 0, ErrBadMoney
	}
	amount := Money(units)*Unit + Money(nano)
	if negative {
		return -amount, nil
	}
	return amount, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// String returns the amount with at least two decimals and no more than needed.
func (m Money) String() string {
	sign, amount := "", uint64(m)
	if m < 0 {
		sign, amount = "-", -uint64(m)
	}
	fraction := strconv.FormatUint(amount%uint64(Unit)+uint64(Unit), 10)[1:]
	fraction = fraction[:2] + strings.TrimRight(fraction[2:], "0")
	return sign + strconv.FormatUint(amount/uint64(Unit), 10) + "." + fraction
}

// MarshalText writes the form that String returns: never a binary fraction.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *Money) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMoney(string(text))
	return err
}
