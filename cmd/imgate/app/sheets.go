package app

import (
	"slices"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// sqlPage describes the views in which people can read a storage that speaks
// SQL.
func sqlPage(plugins []plugin.Definition) page {
	p := page{name: "imgate-sql", section: 7, short: "what a storage that speaks SQL shows"}
	p.blocks = append(p.blocks, heading("Description"))
	p.blocks = append(p.blocks, paragraphs(sqlText)...)
	for _, sheet := range sheetsOf(plugins) {
		p.blocks = append(p.blocks, heading(sheet.Name), block{text: sentence(sheet.Doc)}, block{columns: sheet.Columns})
	}
	return p
}

const sqlText = `A storage that speaks SQL, such as postgres, has these views in the schema that its configuration names. They
are written in the same transaction as what they show, and nothing is ever read back from them. Neither texts of
messages nor passwords are in them.

Later versions may add columns, at the end. A column is never renamed, and its type stays. What a row doesn't have is
NULL. Times have a time zone. An id begins with the time of receipt, so that ids sort by it.`

// sheetsOf returns what people can ask for: of the engine, then of the plugins
// in the order of their list.
func sheetsOf(plugins []plugin.Definition) []plugin.Sheet {
	var sheets []plugin.Sheet
	add := func(more []plugin.Sheet) {
		for _, s := range more {
			known := slices.ContainsFunc(sheets, func(k plugin.Sheet) bool { return k.Name == s.Name })
			if s.Name != "" && !known { // the kinds of one technology have the same tables
				sheets = append(sheets, s)
			}
		}
	}
	add(spool.Sheets())
	for _, d := range plugins {
		add(d.Sheets)
	}
	return sheets
}

// typeInSQL is what a type is called there.
func typeInSQL(t plugin.ColumnType) string {
	switch t {
	case plugin.ColumnNumber:
		return "bigint"
	case plugin.ColumnFlag:
		return "boolean"
	case plugin.ColumnMoment:
		return "timestamptz"
	case plugin.ColumnMoney:
		return "numeric"
	case plugin.ColumnID:
		return "uuid"
	}
	return "text"
}

// columnType says of what type a column is, and whether selecting by it is
// quick.
func columnType(c plugin.Column) string {
	if c.Indexed {
		return typeInSQL(c.Type) + ", indexed"
	}
	return typeInSQL(c.Type)
}
