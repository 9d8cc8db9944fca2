package text

import (
	"unicode"

	"github.com/imgate/imgate/engine/plugin"
)

// Encode writes a text, which is UTF-8, in the first of the alphabets that has
// all its characters. ErrAlphabet: none has. ErrTooLong: it takes more than
// MaxParts SMS, however it goes. ErrElements: see Options.Elements.
func Encode(text string, o Options) ([]Segment, error) {
	for _, alphabet := range o.Alphabets {
		f, data, ok := choose(text, alphabet, &o)
		if ok {
			return segment(data, f, &o)
		}
	}
	return nil, ErrAlphabet
}

// EncodeBinary writes octets that aren't text, with a data_coding that says so.
// Errors: ErrTooLong, ErrElements.
func EncodeBinary(data []byte, coding uint8, o Options) ([]Segment, error) {
	return segment(data, raw{octets{}, coding}, &o)
}

// IsBinary tells whether a data_coding says that data isn't text.
func IsBinary(coding uint8) bool {
	alphabet, ok := alphabetOf(coding, GSM7)
	return ok && alphabet == Binary
}

// raw is octets that aren't text.
type raw struct {
	octets
	as uint8
}

func (f raw) coding() uint8 { return f.as }

// choose writes a text in an alphabet, exactly or else by like characters, if it
// may. Of several forms the one that takes the least is chosen.
func choose(text string, alphabet plugin.Alphabet, o *Options) (form, []byte, bool) {
	alternatives := o.forms(alphabet)
	for _, forms := range alternatives {
		if f, data, ok := shortest(text, forms); ok {
			return f, data, true
		}
	}
	if !o.Transliterate {
		return nil, nil, false
	}
	for _, forms := range alternatives {
		if like, ok := transliterate(text, forms[len(forms)-1]); ok {
			if f, data, ok := shortest(like, forms); ok {
				return f, data, true
			}
		}
	}
	return nil, nil, false
}

// shortest writes a text in the form in which it takes the least.
func shortest(text string, forms []form) (best form, data []byte, ok bool) {
	least := 0
	for _, f := range forms {
		written, can := write(make([]byte, 0, len(text)), f, text)
		if !can {
			continue
		}
		if size := sizeOf(f, written); !ok || size < least {
			best, data, ok, least = f, written, true, size
		}
	}
	return best, data, ok
}

// sizeOf is how much a text takes with the elements that each of its parts has,
// in septets or the like: exact enough to compare forms of one alphabet.
func sizeOf(f form, written []byte) int {
	width := f.width(written)
	parts := 1 + width/f.room(partHeader)
	return width + parts*len(f.elements())
}

// segment cuts what was written as the peer has it. A character is never cut.
func segment(data []byte, f form, o *Options) ([]Segment, error) {
	elements := f.elements()
	if len(o.Elements) > 0 {
		elements = append(elements[:len(elements):len(elements)], o.Elements...)
	}
	if partHeader+len(elements) > maxHeader {
		return nil, ErrElements
	}
	s := splitter{f, data, elements, o}
	if f.width(data) <= f.room(headerLength(elements)) {
		return []Segment{s.whole()}, nil
	}
	ends := cut(data, f, f.room(s.header()))
	switch {
	case len(ends) > MaxParts:
		return nil, ErrTooLong
	case o.Long != LongUDH && o.Long != LongUDH16 && o.Long != LongSAR:
		return []Segment{s.whole()}, nil
	}
	return s.parts(ends), nil
}

// Sizes of user data headers in octets.
const (
	partHeader   = 6  // its length, and which part it is with an 8-bit reference
	partHeader16 = 7  // the same with a 16-bit reference
	maxHeader    = 96 // so that there is room for text
)

// splitter makes segments of what was written.
type splitter struct {
	form
	data     []byte
	elements []byte
	*Options
}

// header is how many octets of a part are its header. Who gets parts by TLVs,
// or whole, makes such parts of them.
func (s splitter) header() int {
	if s.Long == LongUDH16 {
		return partHeader16 + len(s.elements)
	}
	return partHeader + len(s.elements)
}

func (s splitter) whole() Segment {
	data := s.data
	if len(s.elements) > 0 {
		data = appendHeader(make([]byte, 0, headerLength(s.elements)+len(s.data)), nil, s.elements)
		data = append(data, s.data...)
	}
	most := MaxShort
	if s.Long == LongPayload {
		most = s.PayloadOver
	}
	return Segment{Data: data, UDHI: len(s.elements) > 0, DataCoding: s.coding(), Payload: len(data) > most}
}

func (s splitter) parts(ends []int) []Segment {
	var reference uint16
	if s.Reference != nil {
		reference = s.Reference()
	}
	if s.Long == LongUDH {
		reference &= 0xff
	}
	segments := make([]Segment, len(ends))
	buffer := make([]byte, 0, len(s.data)+len(ends)*s.header())
	start := 0
	for i, end := range ends {
		part := Segment{
			DataCoding: s.coding(), SAR: s.Long == LongSAR,
			Reference: reference, Total: uint8(len(ends)), Number: uint8(i + 1),
		}
		begin := len(buffer)
		buffer = s.appendPartHeader(buffer, part)
		part.UDHI = len(buffer) > begin
		buffer = append(buffer, s.data[start:end]...)
		part.Data = buffer[begin:len(buffer):len(buffer)]
		segments[i], start = part, end
	}
	return segments
}

func (s splitter) appendPartHeader(dst []byte, part Segment) []byte {
	switch {
	case s.Long == LongUDH:
		return appendHeader(dst, []byte{elementConcat8, 3, byte(part.Reference), part.Total, part.Number}, s.elements)
	case s.Long == LongUDH16:
		return appendHeader(dst, []byte{elementConcat16, 4, byte(part.Reference >> 8), byte(part.Reference), part.Total, part.Number}, s.elements)
	case len(s.elements) > 0:
		return appendHeader(dst, nil, s.elements)
	}
	return dst
}

// cut returns where parts end that hold so much each: a character is never cut,
// and what is written as several, such as a letter and its accents, only if
// there would be more parts otherwise. It stops at one part too many.
func cut(data []byte, f form, room int) []int {
	apart := cutBefore(data, f, room, func(rune, rune) bool { return false })
	together := cutBefore(data, f, room, belongs)
	if len(together) > len(apart) {
		return apart
	}
	return together
}

// cutBefore fills one part after the other with characters, and cuts before
// those that don't belong to the one before.
func cutBefore(data []byte, f form, room int, belongs func(before, r rune) bool) []int {
	var ends []int
	used, start := 0, 0          // what the part holds, and where it starts
	candidate, usedThere := 0, 0 // where it may end, and what it holds then
	before := rune(0)
	for at := 0; at < len(data) && len(ends) < MaxParts+1; {
		r, octets, width := f.next(data[at:])
		if !belongs(before, r) {
			candidate, usedThere = at, used
		}
		if used+width > room {
			if candidate == start || used-usedThere+width > room {
				candidate, usedThere = at, used
			}
			ends = append(ends, candidate)
			used, start = used-usedThere, candidate
			usedThere = 0
		}
		used, at, before = used+width, at+octets, r
	}
	return append(ends, len(data))
}

const joiner = 0x200d // zero width joiner: what is on both sides is one

// belongs tells whether a character is one with the one before: accents, and
// what emojis are made of.
func belongs(before, r rune) bool {
	if r < 0x300 {
		return before == joiner
	}
	return before == joiner || r == joiner || unicode.Is(unicode.M, r) || r >= 0x1f3fb && r <= 0x1f3ff
}
