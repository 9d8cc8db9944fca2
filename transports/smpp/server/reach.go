package server

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// maxRange is the longest address_range, in octets (SMPP 3.4 §4.1.1).
const maxRange = 40

var errRange = errors.New("address_range is neither a list of numbers nor a regular expression")

// reach is which destinations a bind serves, by its address_range (SMPP 3.4
// §5.2.7). The zero value serves all.
type reach struct {
	numbers []string // without "+"
	pattern *regexp.Regexp
}

// parseReach reads an address_range: nothing for all, numbers with commas or
// semicolons between them, or a regular expression in RE2's syntax, which can't
// be made to take long. As in the standard's examples it may match anywhere:
// "^4477" is all numbers that begin so. Numbers are written without "+".
func parseReach(s string) (reach, error) {
	if s == "" {
		return reach{}, nil
	}
	if len(s) > maxRange {
		return reach{}, errRange
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789+,; ", r) }) {
		numbers := numbersIn(s)
		if len(numbers) == 0 {
			return reach{}, errRange
		}
		return reach{numbers: numbers}, nil
	}
	pattern, err := regexp.Compile(s)
	if err != nil {
		return reach{}, errRange
	}
	return reach{pattern: pattern}, nil
}

func numbersIn(s string) []string {
	numbers := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(",; ", r) })
	for i, number := range numbers {
		numbers[i] = strings.TrimPrefix(number, "+")
	}
	return numbers
}

// covers tells whether a destination is within reach.
func (r reach) covers(number string) bool {
	number = strings.TrimPrefix(number, "+")
	switch {
	case r.pattern != nil:
		return r.pattern.MatchString(number)
	case r.numbers != nil:
		return slices.Contains(r.numbers, number)
	}
	return true
}
