package text

import (
	"errors"
	"fmt"
	"time"
)

// ErrTime is what isn't a time of SMPP 3.4 §7.1.1.
var ErrTime = errors.New("not a time: expected YYMMDDhhmmsstnnp (SMPP 3.4 §7.1.1)")

// timeLength is that of a time without its NUL.
const timeLength = 16

// ParseTime reads an absolute time, whose century is that in which it is nearest
// to now, or one relative to now: so many years, months and days of the
// calendar, in UTC, then hours, minutes and seconds later.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if len(s) != timeLength {
		return time.Time{}, ErrTime
	}
	var n [6]int // years, months, days, hours, minutes, seconds
	for i := range n {
		if n[i] = number(s[2*i : 2*i+2]); n[i] < 0 {
			return time.Time{}, ErrTime
		}
	}
	tenths, quarters := number(s[12:13]), number(s[13:15])
	if tenths < 0 || quarters < 0 || n[1] > 12 || n[2] > 31 || n[3] > 23 || n[4] > 59 || n[5] > 59 {
		return time.Time{}, ErrTime
	}
	switch s[15] {
	case 'R':
		return relative(n, now), nil
	case '+':
		return absolute(n, tenths, quarters, now)
	case '-':
		return absolute(n, tenths, -quarters, now)
	}
	return time.Time{}, ErrTime
}

// number reads one or two digits; -1: they aren't.
func number(s string) int {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = 10*n + int(s[i]-'0')
	}
	return n
}

func relative(n [6]int, now time.Time) time.Time {
	clock := time.Duration(n[3])*time.Hour + time.Duration(n[4])*time.Minute + time.Duration(n[5])*time.Second
	return now.UTC().AddDate(n[0], n[1], n[2]).Add(clock)
}

// maxQuarters is the greatest difference of a local time to UTC, in quarters of
// an hour.
const maxQuarters = 48

func absolute(n [6]int, tenths, quarters int, now time.Time) (time.Time, error) {
	if n[1] == 0 || n[2] == 0 || quarters > maxQuarters || quarters < -maxQuarters {
		return time.Time{}, ErrTime
	}
	year := now.UTC().Year()
	n[0] += year - year%100
	switch {
	case n[0] > year+50:
		n[0] -= 100
	case n[0] <= year-50:
		n[0] += 100
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], tenths*int(100*time.Millisecond), time.UTC)
	if t.Day() != n[2] { // the month hasn't that many days
		return time.Time{}, ErrTime
	}
	return t.Add(-time.Duration(quarters) * 15 * time.Minute), nil
}

// maxRelative is the longest time that FormatRelative says.
const maxRelative = 32*24*time.Hour - time.Second

// FormatRelative writes a time from now, in seconds that are rounded up: at least
// one, at most 31 days, 23:59:59. It has no months or years, which peers count
// differently.
func FormatRelative(d time.Duration) string {
	s := int((min(max(d, time.Second), maxRelative) + time.Second - 1) / time.Second)
	text := []byte("000000000000000R")
	for i, n := range [...]int{s / 86400, s / 3600 % 24, s / 60 % 60, s % 60} {
		text[4+2*i] += byte(n / 10)
		text[5+2*i] += byte(n % 10)
	}
	return string(text)
}

// FormatAbsolute writes a time in UTC, in tenths of seconds.
func FormatAbsolute(t time.Time) string {
	t = t.UTC()
	return fmt.Sprintf("%s%d00+", t.Format("060102150405"), t.Nanosecond()/int(100*time.Millisecond))
}
