package text

import (
	"sync"

	"github.com/warthog618/sms/encoding/gsm7/charset"
)

const escape = 0x1b // the next septet is of the extension table

// table is a basic table of septets and an extension table (3GPP TS 23.038 §6.2.1).
type table struct {
	basic, extension [128]rune // 0: there is no such character
	ascii            [128]code
	others           map[rune]code
	elements         []byte // of the user data header, that announce it
}

// code is how a character is written: a septet, or one behind an escape.
type code uint16

const (
	noCode  code = 0xffff
	escaped code = 0x100 // and the septet
)

// Information elements that name the languages of the two tables (3GPP TS 23.040
// §9.2.3.24.15, §9.2.3.24.16).
const (
	elementSingleShift  = 0x24
	elementLockingShift = 0x25
)

// place is where a character is in a language's table.
type place struct {
	language int
	septet   byte
}

// What the library's tables have wrong: Hindi's basic table (3GPP TS 23.038
// §A.3.6), where it has Bengali's signs, and the extension table of Portuguese
// (§A.2.3).
var (
	wrongBasic     = map[place]rune{{charset.Hindi, 0}: 'ँ', {charset.Hindi, 1}: 'ं', {charset.Hindi, 2}: 'ः'}
	wrongExtension = map[place]rune{{charset.Portuguese, 0x1f}: 'Ê'}
)

// newTable makes the table of a basic table and an extension table, each of a
// language as 3GPP TS 23.038 §6.2.1.2.4 numbers them; 0 is the default's.
func newTable(locking, single int) *table {
	t := &table{others: map[rune]code{}}
	for i := range t.ascii {
		t.ascii[i] = noCode
	}
	t.fill(&t.basic, 0, charset.NewDecoder(locking), wrongBasic, locking)
	t.fill(&t.extension, escaped, charset.NewExtDecoder(single), wrongExtension, single)
	if single != 0 {
		t.elements = append(t.elements, elementSingleShift, 1, byte(single))
	}
	if locking != 0 {
		t.elements = append(t.elements, elementLockingShift, 1, byte(locking))
	}
	return t
}

// fill copies one of the library's tables. An escape, and a return behind one,
// stand for nothing yet.
func (t *table) fill(to *[128]rune, prefix code, from charset.Decoder, wrong map[place]rune, language int) {
	for septet := range byte(128) {
		r := from[septet]
		if right, ok := wrong[place{language, septet}]; ok {
			r = right
		}
		if r == 0 || septet == escape || prefix == escaped && septet == '\r' {
			continue
		}
		to[septet] = r
		t.add(r, prefix|code(septet))
	}
}

// add notes how a character is written, unless there is a way already: what is
// added first is the shortest.
func (t *table) add(r rune, c code) {
	if t.code(r) != noCode {
		return
	}
	if r < 128 {
		t.ascii[r] = c
		return
	}
	t.others[r] = c
}

// code returns how a character is written.
func (t *table) code(r rune) code {
	if r < 128 {
		return t.ascii[r]
	}
	if c, ok := t.others[r]; ok {
		return c
	}
	return noCode
}

// read returns the characters of septets: of one that the extension table lacks,
// that of the basic table (3GPP TS 23.038 §6.2.1.1).
func (t *table) read(data []byte) (string, error) {
	text := make([]byte, 0, len(data)+len(data)/8)
	for i := 0; i < len(data); i++ {
		septet, chars := data[i], &t.basic
		if septet == escape {
			if i++; i == len(data) || data[i] == escape {
				text = append(text, ' ') // what it stands for is not defined yet
				continue
			}
			septet = data[i]
			if septet < 128 && t.extension[septet] != 0 {
				chars = &t.extension
			}
		}
		if septet >= 128 || chars[septet] == 0 {
			return "", ErrCharacters
		}
		text = appendRune(text, chars[septet])
	}
	return string(text), nil
}

// languages are those that have tables, in the order of their numbers from 1.
var languages = [...]string{
	"turkish", "spanish", "portuguese", "bengali", "gujarati", "hindi", "kannada",
	"malayalam", "oriya", "punjabi", "tamil", "telugu", "urdu",
}

// IsLanguage tells whether a language has national tables.
func IsLanguage(name string) bool { return languageNumber(name) > 0 }

// languageNumber is 0 if there is no such language.
func languageNumber(name string) int {
	for i, language := range languages {
		if language == name {
			return i + 1
		}
	}
	return 0
}

// gsm7 is the default alphabet with its extension table. The library makes its
// tables when they are first asked for, and without a lock: here that is before
// anything else runs, below it is once.
var gsm7 = newTable(0, 0)

// national are the tables by the languages of the basic and the extension table.
var national = sync.OnceValue(func() (all [len(languages) + 1][len(languages) + 1]*table) {
	for locking := range all {
		for single := range all[locking] {
			all[locking][single] = newTable(locking, single)
		}
	}
	return all
})

// tableOf returns a table. A language that isn't known is the default's (3GPP
// TS 23.038 §6.2.1.2.2).
func tableOf(locking, single uint8) *table {
	if locking == 0 && single == 0 {
		return gsm7
	}
	if int(locking) > len(languages) {
		locking = 0
	}
	if int(single) > len(languages) {
		single = 0
	}
	all := national()
	return all[locking][single]
}
