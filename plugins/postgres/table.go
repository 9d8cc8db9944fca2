package postgres

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/imgate/imgate/engine/plugin"
)

// schema is the part of the database that is ours.
type schema struct{ name string }

// of returns the quoted name of something in the schema.
func (s schema) of(name string) string { return pgx.Identifier{s.name, name}.Sanitize() }

// sessionName is how the sessions are called that don't write.
func (s schema) sessionName() string { return "imgate/" + s.name }

// writers is how the sessions are called that write, up to the fence.
func (s schema) writers() string { return s.sessionName() + "/" }

// The relations of the schema. Names of sheets have no digits, and those of
// tables no underscore: so nothing that is made of them can collide.
const (
	keyColumn      = "key0"
	valueColumn    = "value0"
	tabColumn      = "tab"
	sharedRelation = "core_rows"
	corePrefix     = "core_"
	rowsPrefix     = "rows_"
)

// table is a table with a relation of its own.
type table struct {
	name    string
	columns []plugin.Column
	view    string // what people call it; empty: nobody asks for it
	doc     string
	read    func(plugin.Change) ([]any, error)
}

func (t table) relation() string { return rowsPrefix + strings.ReplaceAll(t.name, "/", "_") }

// tableOfRelation is the inverse of table.relation.
func tableOfRelation(relation string) string {
	return strings.ReplaceAll(strings.TrimPrefix(relation, rowsPrefix), "_", "/")
}

// maxTable leaves room for what is put before and behind a table's name in
// those of its relation and indexes: PostgreSQL cuts off what is behind 63.
const maxTable = 50

var (
	tableName = regexp.MustCompile(`^[a-z]+(/[a-z]+)*$`)
	sheetName = regexp.MustCompile(`^[a-z_]{1,40}$`)
)

// tablesOf returns the tables that sheets are for.
func tablesOf(sheets []plugin.Sheet) ([]table, error) {
	tables := make([]table, 0, len(sheets))
	names, views := map[string]bool{}, map[string]bool{}
	for _, s := range sheets {
		if err := check(s); err != nil {
			return nil, fmt.Errorf("the sheet of table %q: %w", s.Table, err)
		}
		if names[s.Table] || s.Name != "" && views[s.Name] {
			return nil, fmt.Errorf("the sheet of table %q: there are two of this table, or called %q", s.Table, s.Name)
		}
		names[s.Table], views[s.Name] = true, true
		tables = append(tables, table{name: s.Table, columns: s.Columns, view: s.Name, doc: s.Doc, read: s.Read})
	}
	return tables, nil
}

// check finds what a plugin's author has done wrong.
func check(s plugin.Sheet) error {
	switch {
	case !tableName.MatchString(s.Table) || len(s.Table) > maxTable:
		return fmt.Errorf("expected a table's name of a-z and /, at most %d", maxTable)
	case s.Name != "" && !sheetName.MatchString(s.Name),
		strings.HasPrefix(s.Name, corePrefix), strings.HasPrefix(s.Name, rowsPrefix):
		return fmt.Errorf("its name is %q, expected a-z and _, at most 40, and neither %q nor %q in front", s.Name, corePrefix, rowsPrefix)
	case len(s.Columns) > 0 && s.Read == nil:
		return fmt.Errorf("it has columns and no Read")
	}
	seen := map[string]bool{}
	for _, c := range s.Columns {
		if !sheetName.MatchString(c.Name) || seen[c.Name] {
			return fmt.Errorf("its column %q: expected a name of a-z and _, at most 40, once", c.Name)
		}
		if _, ok := kinds[c.Type]; !ok {
			return fmt.Errorf("its column %q: there is no type %q", c.Name, c.Type)
		}
		seen[c.Name] = true
	}
	return nil
}

// kind is how a type of column is kept and sent.
type kind struct {
	sql     string // as format_type of PostgreSQL's catalogs spells it
	sent    string // the type that is sent
	oid     uint32 // of that
	convert string // from that, with %s for it
}

// kinds are all types of columns. Money is sent in nano-units.
var kinds = map[plugin.ColumnType]kind{
	plugin.ColumnText:   {"text", "text", pgtype.TextOID, "%s"},
	plugin.ColumnNumber: {"bigint", "bigint", pgtype.Int8OID, "%s"},
	plugin.ColumnFlag:   {"boolean", "boolean", pgtype.BoolOID, "%s"},
	plugin.ColumnMoment: {"timestamp with time zone", "timestamptz", pgtype.TimestamptzOID, "%s"},
	plugin.ColumnMoney:  {"numeric(28,9)", "bigint", pgtype.Int8OID, "%s * 0.000000001"},
	plugin.ColumnID:     {"uuid", "uuid", pgtype.UUIDOID, "%s"},
}

// relation is where rows are kept, with the statements for it.
type relation struct {
	table  table
	shared bool // it keeps all tables that have none of their own
	upsert string
	remove string
	fill   string // rewrites the columns of rows that still have their value
	scan   string
	scanTo string
}

// layout says where each table is kept.
type layout struct {
	schema schema
	own    map[string]*relation
	shared *relation
	all    []*relation
}

func newLayout(s schema, tables []table) *layout {
	l := &layout{schema: s, own: map[string]*relation{}, shared: newSharedRelation(s)}
	l.all = append(l.all, l.shared)
	for _, t := range tables {
		r := newRelation(s, t)
		l.own[t.name] = r
		l.all = append(l.all, r)
	}
	return l
}

func (l *layout) of(table string) *relation {
	if r := l.own[table]; r != nil {
		return r
	}
	return l.shared
}

func newRelation(s schema, t table) *relation {
	name := s.of(t.relation())
	columns := []string{keyColumn, valueColumn}
	values := []string{"u.k", "u.v"}
	arrays := []string{"$1::bytea[]", "$2::bytea[]"}
	fields := []string{"k", "v"}
	var typed []string
	for i, c := range t.columns {
		kind, column, field := kinds[c.Type], pgx.Identifier{c.Name}.Sanitize(), fmt.Sprintf("c%d", i)
		value := fmt.Sprintf(kind.convert, "u."+field)
		columns = append(columns, column)
		values = append(values, value)
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+3, kind.sent))
		fields = append(fields, field)
		typed = append(typed, column+" = "+value)
	}
	sent := fmt.Sprintf("unnest(%s) AS u(%s)", strings.Join(arrays, ", "), strings.Join(fields, ", "))
	r := &relation{
		table: t,
		upsert: fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s ON CONFLICT (%s) DO UPDATE SET %s",
			name, strings.Join(columns, ", "), strings.Join(values, ", "), sent, keyColumn, overwrite(columns[1:])),
		remove: fmt.Sprintf("DELETE FROM %s WHERE %s = ANY ($1::bytea[])", name, keyColumn),
	}
	if len(typed) > 0 {
		r.fill = fmt.Sprintf("UPDATE %s AS r SET %s FROM %s WHERE r.%s = u.k AND r.%s = u.v",
			name, strings.Join(typed, ", "), sent, keyColumn, valueColumn)
	}
	r.scan, r.scanTo = scans(name, "")
	return r
}

// newSharedRelation is the same for rows of several tables: each statement has
// the tables' names behind the other parameters.
func newSharedRelation(s schema) *relation {
	name := s.of(sharedRelation)
	r := &relation{
		shared: true,
		upsert: fmt.Sprintf("INSERT INTO %s (%s, %s, %s) SELECT u.t, u.k, u.v FROM unnest($1::bytea[], $2::bytea[], $3::text[]) AS u(k, v, t) ON CONFLICT (%s, %s) DO UPDATE SET %s",
			name, tabColumn, keyColumn, valueColumn, tabColumn, keyColumn, overwrite([]string{valueColumn})),
		remove: fmt.Sprintf("DELETE FROM %s AS r USING unnest($1::bytea[], $2::text[]) AS u(k, t) WHERE r.%s = u.t AND r.%s = u.k", name, tabColumn, keyColumn),
	}
	r.scan, r.scanTo = scans(name, " AND "+tabColumn+" = ")
	return r
}

func overwrite(columns []string) string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c + " = excluded." + c
	}
	return strings.Join(set, ", ")
}

// scans are the statements that read from a key on, and up to another. of is
// what they say before the parameter that is the table's name, if they do.
func scans(name, of string) (open, bounded string) {
	const form = "SELECT %s, %s FROM %s WHERE %s >= $1%s%s ORDER BY %s LIMIT $%d"
	build := func(to string, n int) string {
		which := ""
		if of != "" {
			which = fmt.Sprintf("%s$%d", of, n+1)
		}
		return fmt.Sprintf(form, keyColumn, valueColumn, name, keyColumn, to, which, keyColumn, n)
	}
	return build("", 2), build(" AND "+keyColumn+" < $2", 3)
}
