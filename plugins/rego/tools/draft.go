package tools

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/sipfile"
)

// draft is a question in the making, for trying a policy: some of it is said, in a
// file or on the command line, the rest is assumed.
type draft struct {
	question plugin.Question
	said     map[string]bool // by path, such as "recipient.registered"
	assumed  []string        // paths, in the order of the question

	protocols map[string]string // by transport
}

func newDraft(protocols map[string]string) *draft {
	return &draft{said: map[string]bool{}, protocols: protocols}
}

// questionField is a value in a question: a text, a number, a table.
type questionField struct {
	path  string
	index []int // in the struct
	enum  string
}

// questionFields returns all of them, in order.
func questionFields() []questionField {
	return fieldsBelow("", nil, reflect.TypeFor[plugin.Question]())
}

func fieldsBelow(path string, index []int, t reflect.Type) (fields []questionField) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		f := questionField{path: name, index: append(slices.Clone(index), i), enum: t.Field(i).Tag.Get("enum")}
		if path != "" {
			f.path = path + "." + name
		}
		if inner := t.Field(i).Type; inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			fields = append(fields, fieldsBelow(f.path, f.index, inner)...)
			continue
		}
		fields = append(fields, f)
	}
	return fields
}

// find returns the field at a path, and what of the path is the name of an entry
// in a table. ok: there is such a field.
func find(path string) (f questionField, entry string, ok bool) {
	for _, f := range questionFields() {
		if f.path == path {
			return f, "", true
		}
		if rest, below := strings.CutPrefix(path, f.path+"."); below && f.isTable() && rest != "" {
			return f, rest, true
		}
	}
	return questionField{}, "", false
}

func (f questionField) typ() reflect.Type {
	t := reflect.TypeFor[plugin.Question]().FieldByIndex(f.index).Type
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

func (f questionField) isTable() bool { return f.typ().Kind() == reflect.Map }

// unknownPath names what there is instead.
func unknownPath(path string) error {
	var choices []string
	section := path
	for len(choices) == 0 {
		section = parent(section)
		for _, f := range questionFields() {
			if section == "" || strings.HasPrefix(f.path, section+".") {
				choices = append(choices, f.path)
			}
			if f.isTable() && (section == "" || strings.HasPrefix(f.path, section+".")) {
				choices[len(choices)-1] += ".NAME"
			}
		}
	}
	return fmt.Errorf("%s: the question has no such field, expected one of %s", path, strings.Join(choices, ", "))
}

func parent(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

// followers are the fields that follow from a field: who says that one anew on the
// command line doesn't mean them any more.
var followers = map[string][]string{
	"message.text":         {"message.size", "message.segments"},
	"message.type":         {"message.class", "message.inner"},
	"sender.address":       {"sender.user", "sender.domain"},
	"sender.user":          {"sender.address"},
	"sender.domain":        {"sender.address"},
	"sender.account":       {"sender.local"},
	"recipient.address":    {"recipient.user", "recipient.domain"},
	"recipient.user":       {"recipient.address"},
	"recipient.domain":     {"recipient.address"},
	"recipient.local":      {"recipient.account", "recipient.registered", "recipient.devices"},
	"recipient.account":    {"recipient.local"},
	"recipient.registered": {"recipient.devices"},
	"recipient.devices":    {"recipient.registered"},
	"transport":            {"protocol", "sender.local"},
	"time":                 {"clock.date", "clock.time", "clock.weekday", "clock.hour", "clock.minute"},
}

// set reads PATH=VALUE. What follows from it follows anew.
func (d *draft) set(assignment string) error {
	path, text, found := strings.Cut(assignment, "=")
	if !found {
		return fmt.Errorf("%q: expected PATH=VALUE, such as recipient.registered=false", assignment)
	}
	f, entry, ok := find(path)
	if !ok {
		return unknownPath(path)
	}
	t := f.typ()
	if f.isTable() {
		if entry == "" {
			return fmt.Errorf("%s: expected the name of an entry, such as %s.NAME=VALUE", path, path)
		}
		t = t.Elem()
	}
	value, err := fromText(t, text)
	if err == nil {
		err = f.check(value)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: %w", path, text, err)
	}
	if f.isTable() {
		d.putEntry(f, entry, value)
		return nil
	}
	for _, follower := range followers[path] {
		delete(d.said, follower)
	}
	d.put(f, value)
	return nil
}

// fromText reads a value of a field's type.
func fromText(t reflect.Type, text string) (value reflect.Value, err error) {
	var v any
	switch {
	case t == reflect.TypeFor[time.Time]():
		v, err = time.Parse(time.RFC3339, text)
	case t.Kind() == reflect.Bool:
		v, err = strconv.ParseBool(text)
	case t.Kind() == reflect.Int:
		v, err = strconv.Atoi(text)
	default:
		v = text
	}
	if err != nil {
		return value, expectedOf(t)
	}
	return reflect.ValueOf(v), nil
}

func expectedOf(t reflect.Type) error {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return errors.New("expected a time, such as 2026-01-02T03:04:05Z")
	case t.Kind() == reflect.Bool:
		return errors.New("expected true or false")
	case t.Kind() == reflect.Int:
		return errors.New("expected a whole number")
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Int:
		return errors.New("expected an object whose values are whole numbers")
	case t.Kind() == reflect.Map:
		return errors.New("expected an object whose values are texts")
	}
	return errors.New("expected a text")
}

// put sets a field that is said.
func (d *draft) put(f questionField, value reflect.Value) {
	field := reflect.ValueOf(&d.question).Elem().FieldByIndex(f.index)
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(value.Type()))
		field = field.Elem()
	}
	field.Set(value)
	d.said[f.path] = true
}

func (d *draft) putEntry(f questionField, name string, value reflect.Value) {
	table := reflect.ValueOf(&d.question).Elem().FieldByIndex(f.index)
	if table.IsNil() {
		table.Set(reflect.MakeMap(table.Type()))
	}
	table.SetMapIndex(reflect.ValueOf(name), value)
	d.said[f.path] = true
}

// readJSON takes what a question in JSON says; it may be a part of one.
func (d *draft) readJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	var document json.RawMessage
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("expected a question in JSON: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("expected one question in JSON, found something behind it")
	}
	err := d.readSection("", document)
	d.divideAddress("sender", d.question.Sender.Address)
	d.divideAddress("recipient", d.question.Recipient.Address)
	return err
}

// divideAddress says the parts of an address that is said.
func (d *draft) divideAddress(party, address string) {
	if d.said[party+".address"] {
		user, domain, _ := strings.Cut(address, "@")
		d.derive(party+".user", user)
		d.derive(party+".domain", strings.ToLower(domain))
	}
}

func (d *draft) readSection(path string, text json.RawMessage) error {
	var section map[string]json.RawMessage
	if err := json.Unmarshal(text, &section); err != nil || section == nil {
		return fmt.Errorf("%s: expected an object", cmp.Or(path, "the question"))
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(section)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		f, _, ok := find(at)
		switch {
		case ok && f.path == at:
			errs = append(errs, d.readField(f, section[name]))
		case isSection(at):
			errs = append(errs, d.readSection(at, section[name]))
		default:
			errs = append(errs, unknownPath(at))
		}
	}
	return errors.Join(errs...)
}

func isSection(path string) bool {
	return slices.ContainsFunc(questionFields(), func(f questionField) bool { return strings.HasPrefix(f.path, path+".") })
}

func (d *draft) readField(f questionField, text json.RawMessage) error {
	value := reflect.New(f.typ())
	err := json.Unmarshal(text, value.Interface())
	if err != nil || string(text) == "null" {
		err = expectedOf(f.typ())
	} else {
		err = f.check(value.Elem())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	d.put(f, value.Elem())
	return nil
}

// readSIP takes what a SIP MESSAGE says, as the gateway does.
func (d *draft) readSIP(text []byte) error {
	m, err := sipfile.Parse(text)
	if err != nil {
		return err
	}
	d.sayAddress("sender", m.Sender)
	d.sayAddress("recipient", m.Recipient)
	d.say("message.type", content.MediaType(m.ContentType))
	facts := content.Examine(m.ContentType, m.Body)
	d.say("message.class", facts.Class.String())
	d.say("message.inner", facts.Inner)
	d.say("message.size", len(m.Body))
	words, readable := content.Text(m.ContentType, m.Body)
	segments := 0
	if readable {
		segments = content.Segments(words)
	}
	d.say("message.segments", segments)
	d.say("message.text", words)
	d.say("protocol", "sip")
	if m.Expires != nil {
		d.say("message.expires", *m.Expires)
	}
	return nil
}

// say sets a field of ours.
func (d *draft) say(path string, value any) {
	f, _, _ := find(path)
	d.put(f, reflect.ValueOf(value))
}

func (d *draft) sayAddress(party string, a message.Address) {
	d.say(party+".address", a.String())
	d.say(party+".user", a.User)
	d.say(party+".domain", a.Host)
}
