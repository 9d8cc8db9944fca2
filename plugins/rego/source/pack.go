package source

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/imgate/imgate/engine/plugin"
)

// A bundle's content is an octet that says how it is packed, then, compressed:
// for each file, in the order of their names, the length of its name, the name,
// the length of its text, the text. Numbers are as in encoding/binary.
const (
	packVersion = 1
	maxPath     = 1 << 10 // octets of a name
)

// Pack puts files into a bundle. Equal files make equal bundles.
func Pack(files []File) (plugin.Bundle, error) {
	var packed bytes.Buffer
	packed.WriteByte(packVersion)
	deflate, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		return plugin.Bundle{}, err
	}
	for _, f := range files {
		deflate.Write(binary.AppendUvarint(nil, uint64(len(f.Path)))) // a Buffer takes all; Close says what else is wrong
		io.WriteString(deflate, f.Path)
		deflate.Write(binary.AppendUvarint(nil, uint64(len(f.Text))))
		deflate.Write(f.Text)
	}
	if err := deflate.Close(); err != nil {
		return plugin.Bundle{}, err
	}
	return plugin.Bundle{Revision: revision(files), Content: packed.Bytes()}, nil
}

var errNoPack = errors.New("expected policies as this version of the gateway packs them")

// Unpack returns the files of a bundle that pack has made, and of no other.
func Unpack(b plugin.Bundle) ([]File, error) {
	if len(b.Content) == 0 || len(b.Content) > plugin.MaxBundle || b.Content[0] != packVersion {
		return nil, fmt.Errorf("bundle %s: %w", b.Revision, errNoPack)
	}
	files, err := unpackFiles(bytes.NewReader(b.Content[1:]))
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", b.Revision, err)
	}
	if is := revision(files); is != b.Revision {
		return nil, fmt.Errorf("bundle %s: its content is that of %s", b.Revision, is)
	}
	return files, nil
}

func unpackFiles(packed *bytes.Reader) ([]File, error) {
	inflated := &counted{from: flate.NewReader(packed)} // packed is read octet by octet, and no further than it must
	var files []File
	for {
		name, err := inflated.field(maxPath)
		if errors.Is(err, io.EOF) && inflated.begun == 0 && packed.Len() == 0 {
			return files, nil
		}
		if err != nil {
			return nil, intact(err)
		}
		text, err := inflated.field(MaxFileSize)
		if err != nil {
			return nil, intact(err)
		}
		f := File{Path: string(name), Text: text}
		if !fs.ValidPath(f.Path) || !Wanted(f.Path) || len(files) > 0 && f.Path <= files[len(files)-1].Path {
			return nil, errNoPack
		}
		if files = append(files, f); len(files) > maxFiles || inflated.total > maxTotalSize {
			return nil, errTooMuch
		}
		inflated.begun = 0
	}
}

// intact makes an error of an end in the middle.
func intact(err error) error {
	if errors.Is(err, io.EOF) {
		return errNoPack
	}
	return err
}

// counted reads fields and knows how much it has read.
type counted struct {
	from  io.Reader
	begun int // octets of the file that is being read
	total int // octets of all texts
}

// ReadByte makes it an io.ByteReader.
func (c *counted) ReadByte() (byte, error) {
	var one [1]byte
	_, err := io.ReadFull(c.from, one[:])
	if err == nil {
		c.begun++
	}
	return one[0], err
}

// field reads a length, and that many octets. What it allocates grows with what
// there is, not with what is announced.
func (c *counted) field(most uint64) ([]byte, error) {
	length, err := binary.ReadUvarint(c)
	if err != nil {
		return nil, err
	}
	if length > most {
		return nil, errTooMuch
	}
	var text bytes.Buffer
	n, err := io.CopyN(&text, c.from, int64(length))
	c.begun, c.total = c.begun+int(n), c.total+int(n)
	return text.Bytes(), err
}
