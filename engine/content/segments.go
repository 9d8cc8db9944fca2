package content

import "unicode/utf8"

// How much an SMS holds (3GPP TS 23.040 §9.2.3.24.1): alone, and as one of
// several, each of which begins with six octets that say which it is.
const (
	septetsAlone = 160 // in the GSM 7-bit alphabet
	septetsEach  = 153
	unitsAlone   = 70 // in UCS-2
	unitsEach    = 67

	// MaxSegments is how many SMS a text may take: they are numbered in an octet.
	MaxSegments = 255
)

// Segments is how many SMS a text takes: 0 if there is none, MaxSegments+1 if it
// is too long. It goes in the GSM 7-bit default alphabet with its extension
// table (3GPP TS 23.038 §6.2.1), else in UCS-2. A character is never split.
func Segments(text string) int {
	if fitsOne(text) {
		return 1
	}
	alphabet := counter{alone: septetsAlone, each: septetsEach}
	units := counter{alone: unitsAlone, each: unitsEach}
	basic := true
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		i += size
		if basic {
			width := septets(r)
			alphabet.add(width)
			basic = width > 0
		}
		if r > 0xffff {
			units.add(2) // a surrogate pair
		} else {
			units.add(1)
		}
		if units.full() && (!basic || alphabet.full()) {
			return MaxSegments + 1
		}
	}
	if basic {
		return alphabet.segments()
	}
	return units.segments()
}

// fitsOne tells of most texts that they take one SMS: of those in ASCII.
func fitsOne(text string) bool {
	if text == "" || len(text) > septetsAlone {
		return false
	}
	total := 0
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf || asciiSeptets[text[i]] == 0 {
			return false
		}
		total += int(asciiSeptets[text[i]])
	}
	return total <= septetsAlone
}

// counter fills segments one character after the other.
type counter struct {
	alone, each int
	total       int // all characters' width
	closed      int // segments that are full, if there are several
	open        int // width of what is in the next one
}

func (c *counter) add(width int) {
	c.total += width
	if c.open+width > c.each {
		c.closed++
		c.open = 0
	}
	c.open += width
}

func (c *counter) full() bool { return c.closed >= MaxSegments }

func (c *counter) segments() int {
	switch {
	case c.total == 0:
		return 0
	case c.total <= c.alone:
		return 1
	}
	return c.closed + 1
}

// septets is how many a character takes in the GSM 7-bit alphabet: two behind an
// escape; 0: it isn't in it.
func septets(r rune) int {
	if r < utf8.RuneSelf {
		return int(asciiSeptets[r])
	}
	switch r {
	case '£', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', 'Ø', 'ø', 'Å', 'å', 'Δ', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ',
		'Æ', 'æ', 'ß', 'É', '¤', '¡', 'Ä', 'Ö', 'Ñ', 'Ü', '§', '¿', 'ä', 'ö', 'ñ', 'ü', 'à':
		return 1
	case '€':
		return 2
	}
	return 0
}

// asciiSeptets is septets for ASCII.
var asciiSeptets = func() (width [utf8.RuneSelf]uint8) {
	for r := ' '; r < 0x7f; r++ {
		width[r] = 1
	}
	width['\n'], width['\r'], width['`'] = 1, 1, 0
	for _, r := range "\f^{}\\[~]|" {
		width[r] = 2
	}
	return width
}()
