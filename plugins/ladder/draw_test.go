package ladder

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was drawn with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func tellTwo(l *Ladder) {
	s := newStory(l)
	s.tell()
	s.m = storyMessage(2)
	s.after(60_000_000_000).tell()
}

func TestDrawings(t *testing.T) {
	for name, tell := range map[string]func(*Ladder){
		"delivered": func(l *Ladder) { newStory(l).tell() },
		"refused":   tellRefused,
		"two":       tellTwo,
		"many":      tellMany,
	} {
		t.Run(name, func(t *testing.T) {
			l := New(Config{Packets: 1000, Steps: 1000})
			tell(l)
			found := l.find(l.withAddress(storyMessage(1).From), defaultLimit)
			var text bytes.Buffer
			if err := writeText(&text, newDiagram(found)); err != nil {
				t.Fatal(err)
			}
			document, err := json.MarshalIndent(found, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			svg := drawSVG(newDiagram(found))
			golden(t, name+".txt", text.Bytes())
			golden(t, name+".json", append(document, '\n'))
			golden(t, name+".svg", svg)
			expectNarrow(t, text.String())
			expectHarmless(t, svg)
			for medium, drawn := range map[string][]byte{"text": text.Bytes(), "JSON": document, "SVG": svg} {
				if bytes.Contains(drawn, []byte("secret")) {
					t.Errorf("what a person wrote is in the %s", medium)
				}
			}
		})
	}
}

func expectNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > textWidth {
			t.Errorf("a line of %d characters, at most %d: %s", n, textWidth, line)
		}
	}
}

// expectHarmless wants XML that is well-formed and needs nothing from elsewhere.
func expectHarmless(t *testing.T, svg []byte) {
	t.Helper()
	in := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := in.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("the SVG isn't well-formed: %v", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if name := start.Name.Local; name == "script" || name == "image" || name == "a" || name == "foreignObject" {
			t.Errorf("the SVG has an element %s", name)
		}
		for _, attr := range start.Attr {
			if strings.HasPrefix(attr.Name.Local, "on") || attr.Name.Local == "href" {
				t.Errorf("the SVG has an attribute %s", attr.Name.Local)
			}
		}
	}
}
