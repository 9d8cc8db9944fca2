package decide

import (
	"reflect"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// PlanJSON returns a plan for people to read: under the names that policies
// use, with durations as text, and the service, the revision and the limits
// before them.
func PlanJSON(p plugin.Plan) any {
	shown := readable(reflect.ValueOf(p)).(map[string]any)
	shown["service"], shown["revision"] = p.Service, p.Revision
	if len(p.Limits) > 0 {
		limits := map[string]any{}
		for _, l := range p.Limits {
			limits[l.Name] = map[string]any{"key": l.Key, "count": l.Count, "per": plugin.DurationText(l.Per)}
		}
		shown["limits"] = limits
	}
	return shown
}

// readable returns a value as encoding/json would show it, but for durations.
// An empty list is one, and not null.
func readable(v reflect.Value) any {
	switch value := v.Interface().(type) {
	case time.Duration:
		return plugin.DurationText(value)
	case interface{ MarshalText() ([]byte, error) }:
		text, err := value.MarshalText()
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Slice:
		elements := make([]any, v.Len())
		for i := range elements {
			elements[i] = readable(v.Index(i))
		}
		return elements
	case reflect.Map:
		entries := map[string]any{}
		for key, value := range v.Seq2() {
			entries[key.String()] = readable(value)
		}
		return entries
	case reflect.Struct:
		return readableStruct(v)
	}
	return v.Interface()
}

func readableStruct(v reflect.Value) map[string]any {
	fields := map[string]any{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name != "-" {
			fields[name] = readable(v.Field(i))
		}
	}
	return fields
}
