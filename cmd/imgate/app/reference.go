package app

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// configKey is a key of the configuration file.
type configKey struct {
	path, kind, usual, doc string
}

// configurationPage describes every key that this build knows.
func configurationPage(plugins []plugin.Definition) page {
	p := page{name: "imgate.yaml", section: 5, short: "the configuration of imgate"}
	p.blocks = append(p.blocks, heading("Description"))
	p.blocks = append(p.blocks, paragraphs(configurationText)...)
	p.blocks = append(p.blocks, heading("General"), block{keys: configKeys("", reflect.ValueOf(generalDefaults()))})
	for _, kind := range kinds {
		for _, d := range ofKind(plugins, kind) {
			p.blocks = append(p.blocks, pluginBlocks(d)...)
		}
	}
	return p
}

const configurationText = `imgate reads its configuration from the file that --config names, in YAML. A key that it doesn't know is
an error, and so is a value that can't be used: ` + "`imgate check`" + ` tells all of them, with their lines.
What the file leaves out is as said here. Paths are relative to the working directory.

Durations have a unit: 500ms, 30s, 5m, 24h. Amounts of money have a point and at most nine digits behind it.

storage, policy, accounts and charging exist once each, push once or not at all; below transports and observers there is one section for
each instance, under a name of its own. The key plugin says which plugin it is; without it, it is the one that the
section is named after.

  transports:
    sip:
      plugin: sip
      listen: ["udp://192.0.2.1:5060"]
      domains: [sip.example.com]

A text can be elsewhere, so that the file has no secrets in it: in an environment variable, or in a file, without the
line break at its end.

  password: !env SIP_PASSWORD
  password: !file /run/secrets/sip

Each key has an environment variable that goes before the file: transports.sip.listen is IMGATE_TRANSPORTS_SIP_LISTEN.`

// generalDefaults returns what a file says that says nothing. What depends on
// the machine is left out.
func generalDefaults() general {
	l := &loader{tree: tree{&problems{}}, variables: map[string]string{}}
	settings := l.general(nil)
	settings.Node = ""
	return settings
}

// pluginBlocks describes the section of a plugin.
func pluginBlocks(d plugin.Definition) []block {
	section := string(d.Kind)
	if _, single := usualPlugin[d.Kind]; !single {
		section += "s.NAME"
	}
	blocks := []block{
		heading(fmt.Sprintf("%s, plugin %s", section, d.Name)),
		{text: strings.ToUpper(d.Doc[:1]) + d.Doc[1:] + "."},
	}
	if keys := configKeys("", reflect.ValueOf(d.NewConfig()).Elem()); len(keys) > 0 {
		return append(blocks, block{keys: keys})
	}
	return append(blocks, block{text: "It has no keys."})
}

// configKeys lists the keys of a struct and of those in it.
func configKeys(path string, values reflect.Value) []configKey {
	var keys []configKey
	for i := range values.NumField() {
		field := values.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !field.IsExported() || name == "" || name == "-" {
			continue
		}
		keys = append(keys, keysOf(join(path, name), field.Tag.Get("doc"), values.Field(i))...)
	}
	return keys
}

// keysOf lists a key, or what is below it.
func keysOf(path, doc string, value reflect.Value) []configKey {
	t := value.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isScalar(t):
	case t.Kind() == reflect.Struct && value.Kind() == reflect.Struct:
		return configKeys(path, value)
	case t.Kind() == reflect.Struct:
		return configKeys(path, reflect.Zero(t))
	case t.Kind() == reflect.Slice && isSection(t.Elem()):
		return append([]configKey{{path, "list of sections", usually(value), doc}}, configKeys(path+"[]", reflect.Zero(t.Elem()))...)
	case t.Kind() == reflect.Map && isSection(t.Elem()):
		return append([]configKey{{path, "section of sections", usually(value), doc}}, configKeys(path+".NAME", reflect.Zero(t.Elem()))...)
	}
	return []configKey{{path, kindOf(t), usually(value), doc}}
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isScalar(t) }

// kindOf says what an operator writes for a type.
func kindOf(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case readsText(t):
		return strings.ToLower(t.Name())
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case isWhole(t):
		return "whole number"
	case t.Kind() == reflect.Slice:
		return "list of " + kindOf(t.Elem())
	case t.Kind() == reflect.Map:
		return "section of " + kindOf(t.Elem())
	}
	return "number"
}

// usually writes a default as it would stand in the file; empty for nothing.
func usually(value reflect.Value) string {
	if value.Kind() == reflect.Pointer {
		if value.IsNil() {
			return ""
		}
		value = value.Elem()
	}
	switch v := value.Interface().(type) {
	case time.Duration:
		return plugin.DurationText(v)
	case fmt.Stringer:
		return v.String()
	case encoding.TextMarshaler:
		text, _ := v.MarshalText() // a default of a plugin's own
		return string(text)
	}
	switch value.Kind() {
	case reflect.String:
		return textValue(value.String())
	case reflect.Slice:
		return listText(value)
	case reflect.Map:
		return mapText(value)
	}
	return fmt.Sprint(value.Interface())
}

// textValue puts a text in quotes if YAML would take it for something else.
func textValue(s string) string {
	if strings.ContainsAny(s, `:#{}[],&*!|>'"%@`+"`") || strings.TrimSpace(s) != s {
		return strconv.Quote(s)
	}
	return s
}

func listText(list reflect.Value) string {
	if list.Len() == 0 {
		return ""
	}
	items := make([]string, list.Len())
	for i := range items {
		items[i] = usually(list.Index(i))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func mapText(m reflect.Value) string {
	if m.Len() == 0 {
		return ""
	}
	items := make([]string, 0, m.Len())
	for keys := m.MapRange(); keys.Next(); {
		items = append(items, keys.Key().String()+": "+usually(keys.Value()))
	}
	slices.Sort(items)
	return "{" + strings.Join(items, ", ") + "}"
}
