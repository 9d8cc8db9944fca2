package app

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/pipeline"
	"github.com/imgate/imgate/engine/plugin"
)

// This file is the only one that knows viper. It lays the environment over the
// file and the file over each plugin's defaults; tree.go has checked the file
// before, because viper doesn't see all that can be wrong with one: it folds
// case, joins duplicate keys and overlooks empty sections.

const (
	maxConfig   = 1 << 20             // octets of a configuration file
	builtInName = "built-in defaults" // stands for the file's name in errors
	delimiter   = "\x1f"              // between the keys of viper, so that keys may have dots
)

//go:embed default.yaml
var builtIn []byte

// Which plugin a kind that exists once has if the file doesn't say.
var usualPlugin = map[plugin.Kind]string{
	plugin.KindStorage:  "pebble",
	plugin.KindPolicy:   "rego",
	plugin.KindAccounts: "ledger",
	plugin.KindCharging: "ledger",
	plugin.KindPush:     "webhook", // if there is such a section
}

// general is what the configuration says besides the plugins.
type general struct {
	Node    string `yaml:"node" doc:"what this node is called among the others; default: the name of the machine"`
	DataDir string `yaml:"data_dir" doc:"the directory for all data, which nobody else may use"`
	Admin   struct {
		Listen string `yaml:"listen" doc:"host:port for the admin API, the probes and the metrics"`
	} `yaml:"admin"`
	Limits struct {
		Messages     int `yaml:"messages" doc:"how many messages the spool holds at most"`
		PerRecipient int `yaml:"per_recipient" doc:"how many of them may wait for one recipient"`
		Contacts     int `yaml:"contacts" doc:"how many contacts an address-of-record may have"`
	} `yaml:"limits"`
	Zone      string        `yaml:"zone" doc:"the operator's time zone, for what policies say of days and hours: a name of the IANA database, such as Europe/Vienna"`
	Retention time.Duration `yaml:"retention" doc:"how long the record of a message is kept, without its text, from its receipt"`
	IMDN      struct {
		TTL time.Duration `yaml:"ttl" doc:"how long a notification of what has become of a message (RFC 5438) waits for whom it is for, whatever its sender or the policy says, from 1m to 720h"`
	} `yaml:"imdn"`
}

// Keys whose values are instances, by their names.
const (
	transportsKey = "transports"
	observersKey  = "observers"
)

// Bounds of what the file may say.
const (
	maxMessages  = 100_000_000
	maxContacts  = 1024
	maxRetention = 10 * 365 * 24 * time.Hour
	minIMDN      = time.Minute
	maxIMDN      = 720 * time.Hour
)

// configuration is what was read, and what is worth a word about it.
type configuration struct {
	engine.Config
	warnings []string
}

// loadConfig reads the configuration, from the built-in defaults if path is
// empty. Relative paths in it are relative to the working directory. What is
// wrong with it is told all at once, in a *configError.
func loadConfig(path string, plugins []plugin.Definition) (engine.Config, error) {
	c, err := loadConfiguration(path, plugins)
	return c.Config, err
}

// read reads the configuration that the command was called with.
func (s *source) read() (configuration, error) { return loadConfiguration(s.file(), s.plugins) }

func loadConfiguration(path string, plugins []plugin.Definition) (configuration, error) {
	if path == "" {
		return parseConfiguration(builtInName, builtIn, plugins)
	}
	content, err := readConfig(path)
	if err != nil {
		return configuration{}, err
	}
	return parseConfiguration(path, content, plugins)
}

func readConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("configuration file: %s is a directory", path)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if len(content) > maxConfig {
		return nil, fmt.Errorf("configuration file: %s has more than %d octets", path, maxConfig)
	}
	return content, nil
}

// parseConfig reads a configuration; name stands before each error.
func parseConfig(name string, content []byte, plugins []plugin.Definition) (engine.Config, error) {
	c, err := parseConfiguration(name, content, plugins)
	return c.Config, err
}

func parseConfiguration(name string, content []byte, plugins []plugin.Definition) (configuration, error) {
	found := &problems{file: name}
	root, err := parseYAML(content)
	if err != nil {
		found.note(yamlLine(err), "", "%s", yamlText(err))
		return configuration{}, found.err()
	}
	l := &loader{tree: tree{found}, root: root, plugins: plugins, variables: map[string]string{}}
	c := l.config()
	return configuration{c, l.unknownVariables(os.Environ())}, found.err()
}

// parseYAML returns the root of the one document; nil if it is empty.
func parseYAML(content []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("yaml: line %d: expected one document; a second one begins here", second.Line)
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func yamlLine(err error) int {
	line, _ := strconv.Atoi(yamlError.FindStringSubmatch(err.Error() + "\n")[1])
	return line
}

func yamlText(err error) string {
	return "not valid YAML: " + yamlError.ReplaceAllString(err.Error(), "$2")
}

// loader turns the file into what the engine runs.
type loader struct {
	tree
	root      *yaml.Node
	plugins   []plugin.Definition
	variables map[string]string // the path that each environment variable in use stands for
	asked     []string          // all variables that could have been used
}

func (l *loader) config() engine.Config {
	sections := map[string]*yaml.Node{}
	var own []entry
	for _, e := range l.entries("", l.root) {
		if isPluginKey(e.key) {
			sections[e.key] = e.value
			continue
		}
		own = append(own, e)
	}
	settings := l.general(own)
	c := engine.Config{
		Node:          settings.Node,
		DataDir:       settings.DataDir,
		AdminListen:   settings.Admin.Listen,
		Limits:        engine.Limits(settings.Limits),
		Retention:     settings.Retention,
		Notifications: settings.IMDN.TTL,
		Zone:          zoneOf(settings.Zone),
		Storage:       l.single(plugin.KindStorage, sections),
		Policy:        l.single(plugin.KindPolicy, sections),
		Accounts:      l.single(plugin.KindAccounts, sections),
		Charging:      l.single(plugin.KindCharging, sections),
		Push:          l.push(sections),
		Observers:     l.observers(sections[observersKey]),
		Transports:    l.transports(sections[transportsKey]),
		Place:         l.place,
	}
	l.checkListeners(c)
	return c
}

func isPluginKey(key string) bool {
	_, single := usualPlugin[plugin.Kind(key)]
	return single || key == transportsKey || key == observersKey
}

// general reads what is not a plugin's.
func (l *loader) general(own []entry) general {
	settings := general{Node: hostname(), DataDir: "./imgate-data", Zone: "UTC", Retention: pipeline.DefaultRetention}
	settings.Admin.Listen = "127.0.0.1:8060"
	settings.IMDN.TTL = pipeline.DefaultNotifications
	limits := &settings.Limits
	limits.Messages, limits.PerRecipient, limits.Contacts = pipeline.DefaultMessages, pipeline.DefaultPerRecipient, pipeline.DefaultContacts
	values := l.structure("", own, reflect.TypeFor[general](),
		"storage", "policy", "accounts", "charging", "push", observersKey, transportsKey)
	l.overlay("", values, &settings)
	for _, rule := range []struct {
		ok            bool
		key, expected string
	}{
		{nodeName.MatchString(settings.Node), "node", `a name of letters, digits, ".", "_" and "-", at most 64`},
		{settings.DataDir != "", "data_dir", "a directory, such as ./imgate-data"},
		{isAddress(settings.Admin.Listen), "admin.listen", `host:port, such as "127.0.0.1:8060"`},
		{within(limits.Messages, maxMessages), "limits.messages", fmt.Sprintf("a number from 1 to %d", maxMessages)},
		{within(limits.PerRecipient, maxMessages), "limits.per_recipient", fmt.Sprintf("a number from 1 to %d", maxMessages)},
		{within(limits.Contacts, maxContacts), "limits.contacts", fmt.Sprintf("a number from 1 to %d", maxContacts)},
		{settings.IMDN.TTL >= minIMDN && settings.IMDN.TTL <= maxIMDN, "imdn.ttl", fmt.Sprintf("a time from %v to %v", minIMDN, maxIMDN)},
		{zoneOf(settings.Zone) != nil, "zone", `the name of a time zone, such as "Europe/Vienna"`},
		{settings.Retention >= pipeline.MinRetention && settings.Retention <= maxRetention, "retention",
			fmt.Sprintf("a time from %v to %v", pipeline.MinRetention, maxRetention)},
	} {
		if !rule.ok {
			l.wrongValue("", rule.key, "expected "+rule.expected)
		}
	}
	return settings
}

func within(n, most int) bool { return n >= 1 && n <= most }

var (
	nodeName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	instanceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

// hostname is what a node is called that has no name of its own.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || !nodeName.MatchString(name) {
		return "imgate"
	}
	return name
}

func isAddress(hostport string) bool {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || host == "" {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// single reads the section of a kind that exists once.
func (l *loader) single(kind plugin.Kind, sections map[string]*yaml.Node) engine.Instance {
	return l.instance(kind, string(kind), string(kind), sections[string(kind)], usualPlugin[kind])
}

// transports reads the transports; there must be one.
func (l *loader) transports(section *yaml.Node) []engine.Instance {
	if section == nil || isEmpty(section) {
		l.wrongValue("", transportsKey, "expected at least one, such as sip: {plugin: sip}")
		return nil
	}
	return l.instances(plugin.KindTransport, transportsKey, section)
}

// instances reads the instances of a kind, in the order of their names.
func (l *loader) instances(kind plugin.Kind, key string, section *yaml.Node) []engine.Instance {
	var instances []engine.Instance
	for _, e := range l.entries(key, section) {
		if !instanceName.MatchString(e.key) {
			l.note(e.line, join(key, e.key), `expected a name of lower-case letters, digits, ".", "_" and "-", at most 64`)
		}
		instances = append(instances, l.instance(kind, e.key, join(key, e.key), e.value, ""))
	}
	slices.SortFunc(instances, func(a, b engine.Instance) int { return strings.Compare(a.Name, b.Name) })
	return instances
}

// instance reads a plugin's section. Without a key "plugin" the plugin is the
// usual one, or the one that the instance is named after.
func (l *loader) instance(kind plugin.Kind, name, path string, section *yaml.Node, usual string) engine.Instance {
	definition, ok := l.definition(kind, name, path, section, usual)
	if !ok {
		return engine.Instance{Name: name}
	}
	settings := definition.NewConfig()
	list := l.entries(path, section)
	values := l.structure(path, list, reflect.TypeOf(settings).Elem(), "plugin")
	l.overlay(path, values, settings)
	l.validate(path, settings)
	return engine.Instance{Name: name, Plugin: definition, Settings: settings}
}

func (l *loader) definition(kind plugin.Kind, name, path string, section *yaml.Node, usual string) (plugin.Definition, bool) {
	chosen, said := l.chosenPlugin(path, section)
	if !said {
		chosen = usual
	}
	if chosen == "" {
		chosen = name
	}
	var known []string
	for _, d := range l.plugins {
		if d.Kind != kind {
			continue
		}
		if d.Name == chosen {
			return d, true
		}
		known = append(known, d.Name)
	}
	slices.Sort(known)
	if at := join(path, "plugin"); !l.covers(at) {
		l.wrongValue(path, "plugin", fmt.Sprintf("unknown %s plugin %q; %s", kind, chosen, expectedOneOf(chosen, known)))
	}
	return plugin.Definition{}, false
}

// chosenPlugin returns what the environment or else the section says.
func (l *loader) chosenPlugin(path string, section *yaml.Node) (name string, said bool) {
	at := join(path, "plugin")
	if text, ok := l.environment(at); ok {
		return text, true
	}
	if section == nil || section.Kind != yaml.MappingNode {
		return "", false
	}
	for i := 0; i+1 < len(section.Content); i += 2 {
		if section.Content[i].Value == "plugin" {
			return l.scalar(at, section.Content[i+1], reflect.TypeFor[string]())
		}
	}
	return "", false
}

// overlay lays values of the file over what settings points to, and the
// environment over both.
func (l *loader) overlay(path string, values map[string]any, settings any) {
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	err := v.MergeConfigMap(values)
	l.bind(v, path, nil, reflect.TypeOf(settings).Elem())
	err = errors.Join(err, v.UnmarshalExact(settings, strictly))
	if err != nil { // tree.go accepts what viper doesn't
		l.note(0, path, "%v", err)
	}
}

func strictly(c *mapstructure.DecoderConfig) {
	c.TagName = "yaml"
	c.IgnoreUntaggedFields = true
	c.WeaklyTypedInput = false
	c.ZeroFields = true // what is written replaces a default list, whose array all instances share
	c.DecodeHook = fromText
}

// fromText reads what is written in the file or the environment.
func fromText(from, to reflect.Type, data any) (any, error) {
	if from.Kind() != reflect.String {
		return data, nil
	}
	text := data.(string)
	switch {
	case isScalar(to):
		return parseScalar(text, to)
	case to.Kind() == reflect.Slice: // only the environment has lists in one text
		return splitList(text), nil
	}
	return data, nil
}

// bind makes viper read the environment variables of a struct's scalars and
// of its lists of scalars, which have commas between their items.
func (l *loader) bind(v *viper.Viper, path string, keys []string, to reflect.Type) {
	names, types := fields(to)
	for _, name := range names {
		field := types[name]
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		at, below := join(path, name), append(keys[:len(keys):len(keys)], name)
		switch {
		case isScalar(field), field.Kind() == reflect.Slice && isScalar(field.Elem()):
			l.bindOne(v, at, below, field)
		case field.Kind() == reflect.Struct:
			l.bind(v, at, below, field)
		}
	}
}

func (l *loader) bindOne(v *viper.Viper, path string, keys []string, to reflect.Type) {
	text, ok := l.environment(path)
	if !ok {
		return
	}
	items, item := []string{text}, to
	if !isScalar(to) {
		items, item = splitList(text), to.Elem()
	}
	for _, text := range items {
		if _, err := parseScalar(text, item); err != nil {
			l.noteVariable(variableOf(path), path, "%v", err)
			return
		}
	}
	_ = v.BindEnv(strings.Join(keys, delimiter), variableOf(path)) // fails without a key only
}

func splitList(text string) []string {
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// validate asks the plugin what it thinks of its settings.
func (l *loader) validate(path string, settings plugin.Config) {
	for _, err := range plugin.Mistakes(settings.Validate()) {
		invalid, ok := errors.AsType[*plugin.InvalidKey](err)
		if !ok {
			l.wrongValue(path, "", err.Error())
			continue
		}
		l.wrongValue(path, invalid.Key, "expected "+invalid.Expected)
	}
}

// wrongValue notes a value that can be read and not used, wherever it came
// from; not if the key has a problem already: then the value isn't the one
// that was meant.
func (l *loader) wrongValue(path, key, text string) {
	at := path
	if key != "" {
		at = join(path, key)
	}
	if l.covers(at) {
		return
	}
	whole, _, _ := strings.Cut(at, "[") // of a list, if this is an item
	if variable := variableOf(whole); l.variables[variable] == whole {
		l.noteVariable(variable, at, "%s", text)
		return
	}
	l.note(lineOf(l.root, 0, at), at, "%s", text)
}
