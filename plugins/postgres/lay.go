package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// catalog is what there is in the schema.
type catalog struct {
	relations map[string]described // tables and views, by name
	indexes   map[string]bool
}

// described is a table or a view as the database knows it.
type described struct {
	doc     string
	columns []describedColumn
}

type describedColumn struct{ name, kind, doc string }

func (d described) column(name string) (describedColumn, bool) {
	i := slices.IndexFunc(d.columns, func(c describedColumn) bool { return c.name == name })
	if i < 0 {
		return describedColumn{}, false
	}
	return d.columns[i], true
}

// lay makes a relation, its indexes and its view for each table that lacks
// them, and adds the columns that are new. It returns all tables that have a
// relation, also those whose sheet this version doesn't have.
func lay(ctx context.Context, tx pgx.Tx, s schema, tables []table) ([]table, error) {
	have, err := readCatalog(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	if err := unshare(ctx, tx, s, have, tables); err != nil {
		return nil, err
	}
	var statements []string
	for _, t := range tables {
		lacking, err := differences(s, have, t)
		if err != nil {
			return nil, err
		}
		statements = append(statements, lacking...)
	}
	if len(statements) > 0 {
		if err := change(ctx, tx, s, statements); err != nil {
			return nil, err
		}
	}
	return append(slices.Clone(tables), forgotten(have, tables)...), move(ctx, tx, s, have, tables)
}

// change changes relations. Nobody writes meanwhile: a writer that has locked
// one relation and waits for another would be waited for in turn.
func change(ctx context.Context, tx pgx.Tx, s schema, statements []string) error {
	turn := "SELECT FROM " + s.of("core_fence") + " WHERE one FOR NO KEY UPDATE"
	err := execute(ctx, tx, turn+";\n"+strings.Join(statements, ";\n"))
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == stateLockTimeout {
		return &refusal{fmt.Sprintf("a relation has to be changed, and somebody has been reading it for more than %s: end the long query, or try again when it has ended", ddlWait)}
	}
	if err != nil {
		return fmt.Errorf("lay out the tables: %w", err)
	}
	return nil
}

// forgotten are tables that have a relation and no sheet any more.
func forgotten(have catalog, tables []table) []table {
	var found []table
	for relation := range have.relations {
		name := tableOfRelation(relation)
		known := func(t table) bool { return t.name == name }
		if strings.HasPrefix(relation, rowsPrefix) && !slices.ContainsFunc(tables, known) {
			found = append(found, table{name: name})
		}
	}
	return found
}

func readCatalog(ctx context.Context, tx pgx.Tx, s schema) (catalog, error) {
	have := catalog{relations: map[string]described{}, indexes: map[string]bool{}}
	rows, err := tx.Query(ctx, `SELECT c.relname, c.relkind = 'i', coalesce(obj_description(c.oid, 'pg_class'), ''),
			coalesce(a.attname, ''), coalesce(format_type(a.atttypid, a.atttypmod), ''), coalesce(col_description(c.oid, a.attnum), '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE n.nspname = $1 AND c.relkind IN ('r', 'v', 'i') ORDER BY c.relname, a.attnum`, s.name)
	if err != nil {
		return have, fmt.Errorf("read the catalog: %w", err)
	}
	var relation, doc string
	var index bool
	var c describedColumn
	_, err = pgx.ForEachRow(rows, []any{&relation, &index, &doc, &c.name, &c.kind, &c.doc}, func() error {
		if index {
			have.indexes[relation] = true
			return nil
		}
		have.relations[relation] = described{doc: doc, columns: append(have.relations[relation].columns, c)}
		return nil
	})
	if err != nil {
		return have, fmt.Errorf("read the catalog: %w", err)
	}
	return have, nil
}

// churning is how a relation is kept whose rows come and soon go: dead rows are
// cleared away when there is a fiftieth of the relation of them, and quickly;
// an updated row finds room on its page, so that no index has to follow; and
// the file isn't cut at its end, for which writers would have to wait.
const churning = " WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_limit = 2000, vacuum_truncate = off)"

// differences are the statements that make what a table lacks.
func differences(s schema, have catalog, t table) ([]string, error) {
	name := s.of(t.relation())
	is, exists := have.relations[t.relation()]
	var statements []string
	if !exists {
		statements = append(statements, fmt.Sprintf("CREATE TABLE %s (%s bytea PRIMARY KEY, %s bytea NOT NULL)%s", name, keyColumn, valueColumn, churning))
	}
	added := 0
	for i, c := range t.columns {
		column := pgx.Identifier{c.Name}.Sanitize()
		if was, ok := is.column(c.Name); !ok {
			statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", name, column, kinds[c.Type].sql))
			added++
		} else if was.kind != kinds[c.Type].sql {
			return nil, &refusal{fmt.Sprintf("column %q of table %q is %s there, and %s here: another version of a plugin made it", c.Name, t.name, was.kind, kinds[c.Type].sql)}
		}
		if index := fmt.Sprintf("%s_%d", t.relation(), i); c.Indexed && !have.indexes[index] {
			statements = append(statements, fmt.Sprintf("CREATE INDEX %s ON %s (%s)", pgx.Identifier{index}.Sanitize(), name, column))
		}
	}
	if exists && added > 0 {
		statements = append(statements, fmt.Sprintf("INSERT INTO %s (relation) VALUES (%s) ON CONFLICT (relation) DO UPDATE SET after = ''", s.of("core_fill"), literal(t.relation())))
	}
	shown, err := view(s, have, t)
	return append(statements, shown...), err
}

// view are the statements that make a table's view what it should be. One that
// a newer version has made has more columns, and stays.
func view(s schema, have catalog, t table) ([]string, error) {
	if t.view == "" || len(t.columns) == 0 {
		return nil, nil
	}
	name := s.of(t.view)
	is := have.relations[t.view]
	var columns, statements []string
	for i, c := range t.columns {
		columns = append(columns, pgx.Identifier{c.Name}.Sanitize())
		if i < len(is.columns) && is.columns[i].name != c.Name {
			return nil, &refusal{fmt.Sprintf("view %q has the column %q where %q was expected: another version of a plugin made it; drop the view to have it made anew", t.view, is.columns[i].name, c.Name)}
		}
	}
	if len(is.columns) < len(columns) {
		statements = append(statements, fmt.Sprintf("CREATE OR REPLACE VIEW %s AS SELECT %s FROM %s", name, strings.Join(columns, ", "), s.of(t.relation())))
	}
	if is.doc != clean(t.doc) {
		statements = append(statements, fmt.Sprintf("COMMENT ON VIEW %s IS %s", name, literal(t.doc)))
	}
	for i, c := range t.columns {
		if doc := clean(c.Doc); i >= len(is.columns) || is.columns[i].doc != doc {
			statements = append(statements, fmt.Sprintf("COMMENT ON COLUMN %s.%s IS %s", name, columns[i], literal(doc)))
		}
	}
	return statements, nil
}

// literal quotes a text for a statement (standard_conforming_strings is on).
func literal(text string) string { return "'" + strings.ReplaceAll(clean(text), "'", "''") + "'" }

// unshare refuses to give a table a relation of its own while another node may
// write to the one that it shared: that node has to be stopped before.
func unshare(ctx context.Context, tx pgx.Tx, s schema, have catalog, tables []table) error {
	for _, t := range tables {
		if _, exists := have.relations[t.relation()]; exists {
			continue
		}
		var held bool
		err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+s.of(sharedRelation)+" WHERE tab = $1)"+
			" AND EXISTS (SELECT FROM "+s.of("core_lease")+" WHERE NOT released AND ends > clock_timestamp())", t.name).Scan(&held)
		if err != nil {
			return fmt.Errorf("look for rows of table %q: %w", t.name, err)
		}
		if held {
			return &refusal{fmt.Sprintf("table %q gets a relation of its own, and a node of an older version may be writing: stop all nodes before this one is started", t.name)}
		}
	}
	return nil
}

// move moves the rows of tables that got a relation of their own to it.
func move(ctx context.Context, tx pgx.Tx, s schema, have catalog, tables []table) error {
	for _, t := range tables {
		if _, existed := have.relations[t.relation()]; existed {
			continue
		}
		name := s.of(t.relation())
		sql := fmt.Sprintf("WITH gone AS (DELETE FROM %s WHERE tab = $1 RETURNING key0, value0) INSERT INTO %s (key0, value0) SELECT key0, value0 FROM gone", s.of(sharedRelation), name)
		moved, err := tx.Exec(ctx, sql, t.name)
		if err != nil {
			return fmt.Errorf("move the rows of table %q: %w", t.name, err)
		}
		if moved.RowsAffected() == 0 || len(t.columns) == 0 {
			continue
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+s.of("core_fill")+" (relation) VALUES ($1)", t.relation()); err != nil {
			return fmt.Errorf("note that table %q is to be filled: %w", t.name, err)
		}
	}
	return nil
}
