package plugin

// Sheet says how the rows of one table read, for storages that people can ask
// in a language of their own, as SQL databases. Such a storage keeps, beside key
// and value, what Read returns of each row, and shows it under the sheet's name.
// What it shows is for people alone: nothing is ever read back from it.
//
// Sheets grow: a later version may have more columns, at the end. A column is
// never renamed, nor is its type changed.
type Sheet struct {
	Table string // whose rows; in Definition.Sheets without the technology's prefix
	// Name is what people call it: [a-z_]+, at most 40 octets. Empty: nobody
	// asks for this table, and a storage need only know that it exists.
	Name    string
	Doc     string // one line: what a row of it is
	Columns []Column
	// Read returns a value for each column, of the Go type that its Type names,
	// or nil where the row has none. It is called once for each row that is
	// written, from one goroutine. An error leaves the columns empty: the row is
	// written all the same. Secrets and the text of messages don't belong here.
	Read func(row Change) ([]any, error)
}

// Column is one fact of a row.
type Column struct {
	Name    string // [a-z_]+, at most 40 octets
	Type    ColumnType
	Doc     string // half a line
	Indexed bool   // people select by it where there are many rows
}

// ColumnType says what a column holds.
type ColumnType string

// The types, with what Read returns for each.
const (
	ColumnText   ColumnType = "text"   // string, of valid UTF-8 without NUL
	ColumnNumber ColumnType = "number" // int64
	ColumnFlag   ColumnType = "flag"   // bool
	ColumnMoment ColumnType = "moment" // time.Time
	ColumnMoney  ColumnType = "money"  // Money
	ColumnID     ColumnType = "id"     // message.ID
)
