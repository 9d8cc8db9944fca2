package postgres

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/imgate/imgate/engine/plugin"
)

// Config says where the database is.
type Config struct {
	URL      string `yaml:"url" doc:"the database, as a libpq URL; several hosts: the one that takes writes is used"`
	Password string `yaml:"password" doc:"the role's password, unless the URL, PGPASSWORD or ~/.pgpass has it"`
	Schema   string `yaml:"schema" doc:"the schema that is imgate's own; it is made if there is none"`
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

// Validate refuses what can't be connected to. It doesn't try to.
func (c Config) Validate() error {
	var errs []error
	wrong := func(key, expected string) {
		errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
	}
	if _, err := c.parse(); err != nil {
		wrong("url", err.Error())
	}
	if strings.ContainsRune(c.Password, 0) {
		wrong("password", "a text without NUL")
	}
	if !schemaName.MatchString(c.Schema) || strings.HasPrefix(c.Schema, "pg_") {
		wrong("schema", "a name of a-z, 0-9 and _, at most 40, that begins neither with a digit nor with pg_")
	}
	return errors.Join(errs...)
}

// config is how each connection is made.
type config = pgx.ConnConfig

// errURL says what was expected, and nothing of what was found: that may have
// a password in it.
var errURL = errors.New(`a URL such as "postgres://imgate@db.example:5432/imgate?sslmode=verify-full", whose files can be read`)

func (c Config) parse() (*config, error) {
	if !strings.HasPrefix(c.URL, "postgres://") && !strings.HasPrefix(c.URL, "postgresql://") {
		return nil, errURL
	}
	parsed, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, errURL
	}
	if c.Password != "" {
		parsed.Password = c.Password
	}
	return parsed, nil
}

// parameters are how every session of ours is set. What the server does must
// not depend on statistics: it would choose to read the whole of a relation
// that is empty, and keep doing so when it isn't any more.
var parameters = map[string]string{
	"search_path":                     "pg_catalog",
	"standard_conforming_strings":     "on",
	"client_encoding":                 "UTF8",
	"enable_indexscan":                "on",
	"enable_nestloop":                 "on",
	"enable_seqscan":                  "off",
	"enable_bitmapscan":               "off",
	"enable_hashjoin":                 "off",
	"enable_mergejoin":                "off",
	"plan_cache_mode":                 "force_generic_plan",
	"jit":                             "off",
	"max_parallel_workers_per_gather": "0",
	// An Apply that has waited for another one must see what that has done.
	"default_transaction_isolation": "read committed",
	// No session outlives its node for long, and none waits for another for
	// longer than its node does.
	"statement_timeout":                   "10s",
	"lock_timeout":                        "2s",
	"idle_in_transaction_session_timeout": "3s",
	"tcp_keepalives_idle":                 "5",
	"tcp_keepalives_interval":             "2",
	"tcp_keepalives_count":                "3",
}

// connection is the configuration of a session, but for its name.
func (c Config) connection() (*config, error) {
	parsed, err := c.parse()
	if err != nil {
		return nil, &plugin.InvalidKey{Key: "url", Expected: err.Error()}
	}
	parsed.ValidateConnect = nil // whether a host takes writes is for connect to see
	if parsed.ConnectTimeout <= 0 || parsed.ConnectTimeout > connectWithin {
		parsed.ConnectTimeout = connectWithin
	}
	for name, value := range parameters {
		parsed.RuntimeParams[name] = value
	}
	return parsed, nil
}

// place is where the database is, for messages.
func place(c *config) string {
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks {
		host := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
		if host != hosts[len(hosts)-1] { // the same without TLS
			hosts = append(hosts, host)
		}
	}
	return fmt.Sprintf("database %q at %s", c.Database, strings.Join(hosts, ", "))
}
