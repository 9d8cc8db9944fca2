package text

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// alike are characters that others may stand for: the first of the words that an
// alphabet has is taken. Letters that are others with accents need no row.
var alike = map[rune][]string{
	// quotation marks
	'‘': {"'"}, '’': {"'"}, '‚': {"'"}, '‛': {"'"}, '′': {"'"}, '`': {"'"}, '´': {"'"}, '‹': {"<"}, '›': {">"},
	'“': {`"`}, '”': {`"`}, '„': {`"`}, '‟': {`"`}, '″': {`"`}, '«': {`"`}, '»': {`"`},
	// dashes and dots
	'‐': {"-"}, '‑': {"-"}, '‒': {"-"}, '–': {"-"}, '—': {"-"}, '―': {"-"}, '−': {"-"},
	'…': {"..."}, '•': {"*"}, '·': {"."},
	// spaces, and what can't be seen
	'\t': {" "}, '\u00a0': {" "}, '\u2002': {" "}, '\u2003': {" "}, '\u2009': {" "}, '\u200a': {" "}, '\u202f': {" "}, '\u3000': {" "},
	'\u2007': {" "}, '\u2008': {" "}, '\u2028': {"\n"}, '\u2029': {"\n"}, '\u00ad': {""}, '\u200b': {""}, '\u2060': {""}, '\ufeff': {""},
	// ligatures and letters that aren't made of others and accents
	'ﬀ': {"ff"}, 'ﬁ': {"fi"}, 'ﬂ': {"fl"}, 'ﬃ': {"ffi"}, 'ﬄ': {"ffl"}, 'ﬅ': {"st"}, 'ﬆ': {"st"},
	'œ': {"oe"}, 'Œ': {"OE"}, 'æ': {"ae"}, 'Æ': {"AE"}, 'ĳ': {"ij"}, 'Ĳ': {"IJ"}, 'ß': {"ss"}, 'ẞ': {"ß", "SS"},
	'ł': {"l"}, 'Ł': {"L"}, 'đ': {"d"}, 'Đ': {"D"}, 'ð': {"d"}, 'Ð': {"D"}, 'þ': {"th"}, 'Þ': {"Th"},
	'ħ': {"h"}, 'Ħ': {"H"}, 'ı': {"i"}, 'ŋ': {"ng"}, 'Ŋ': {"NG"}, 'ŧ': {"t"}, 'Ŧ': {"T"}, 'ø': {"o"}, 'Ø': {"O"},
	'№': {"No"}, '™': {"TM"}, '©': {"(C)"}, '®': {"(R)"}, '€': {"EUR"},
	// capitals of other scripts that look the same
	'Α': {"A"}, 'Β': {"B"}, 'Ε': {"E"}, 'Ζ': {"Z"}, 'Η': {"H"}, 'Ι': {"I"}, 'Κ': {"K"}, 'Μ': {"M"}, 'Ν': {"N"},
	'Ο': {"O"}, 'Ρ': {"P"}, 'Τ': {"T"}, 'Υ': {"Y"}, 'Χ': {"X"}, '∆': {"Δ"},
	'А': {"A"}, 'В': {"B"}, 'Е': {"E"}, 'К': {"K"}, 'М': {"M"}, 'Н': {"H"}, 'О': {"O"}, 'Р': {"P"}, 'С': {"C"},
	'Т': {"T"}, 'Х': {"X"}, 'Ѕ': {"S"}, 'І': {"I"}, 'Ј': {"J"}, 'Ф': {"Φ"}, 'Г': {"Γ"}, 'Л': {"Λ"}, 'П': {"Π"},
}

// transliterate replaces the characters of a text that a form lacks by like ones;
// false: there are none for one of them.
func transliterate(text string, f form) (string, bool) {
	var like strings.Builder
	like.Grow(len(text))
	for _, r := range norm.NFC.String(text) { // an accent of its own goes with its letter
		word, ok := likeness(r, f)
		if !ok {
			return "", false
		}
		like.WriteString(word)
	}
	return like.String(), true
}

// likeness is what stands for a character: itself, a like one, or the letter
// without its accents.
func likeness(r rune, f form) (string, bool) {
	if has(f, string(r)) {
		return string(r), true
	}
	for _, word := range alike[r] {
		if has(f, word) {
			return word, true
		}
	}
	plain := strings.Map(withoutAccent, norm.NFD.String(string(r)))
	if plain == string(r) || !isLetters(plain) {
		return "", false
	}
	return likenessOf(plain, f)
}

// likenessOf is likeness of what is left without accents, which may be a letter
// of another script.
func likenessOf(plain string, f form) (string, bool) {
	if has(f, plain) {
		return plain, true
	}
	for _, r := range plain {
		for _, word := range alike[r] {
			if has(f, word) {
				return word, true
			}
		}
	}
	return "", false
}

func withoutAccent(r rune) rune {
	if unicode.Is(unicode.Mn, r) {
		return -1
	}
	return r
}

// isLetters tells whether a text has a letter: an accent that stands alone means
// something.
func isLetters(s string) bool { return strings.ContainsFunc(s, unicode.IsLetter) }

// has tells whether a form has all characters of a text.
func has(f form, text string) bool {
	_, ok := write(nil, f, text)
	return ok
}
