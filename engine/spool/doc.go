// Package spool is what the engine keeps on disk and in memory at once: the
// messages that wait, the outbox of records for charging, where devices can be
// reached, and which submissions were seen. Everything is written by one
// committer over a plugin.Storage, so it is written once for every storage.
// Memory caches the disk and can be rebuilt from it.
//
// The text of a message is in table messages alone, and its row is deleted when
// the message ends. When its octets leave the disk is the storage's business:
// Pebble overwrites nothing, and lets go of old blocks when it compacts.
//
// The package must not know what a message goes through: that is the business
// of package pipeline.
package spool

// The engine's tables. A technology's own tables have its name and a slash in
// front and so can't collide with these.
const (
	tableMessages = "messages" // id → Entry, written once
	tableStates   = "states"   // id → State, for messages that didn't go at once
	tableOutbox   = "outbox"   // id → plugin.Record, until it is settled
	tableBindings = "bindings" // account, transport, contact → plugin.Binding
	tableDevices  = "devices"  // digest of account and device → Device, until it logs out or is forgotten
	tableHistory  = "history"  // id → Summary, once the message has ended
	tableSecrets  = "secrets"  // name → octets
	tableWindows  = "windows"  // digest of the key → Window, until it is over
	tableSeen     = "seen"     // when it was noted, digest of the key → what became of it
	tableNames    = "names"    // account, name → id, of what has a name that isn't its own
	tableParts    = "parts"    // id, number → PartRow, until the message is complete or its time is over
)

// Bounds of a page when memory is rebuilt, in rows. The first one is small; the
// others have about pageBytes.
const (
	firstPage = 256
	maxPage   = 8192
	pageBytes = 4 << 20
)
