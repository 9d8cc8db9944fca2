package translate

import "strings"

// MessageID is a message's public ID as SMPP's message_id. A receipt has it in a
// text in the default alphabet, where the octet of ASCII's "_" stands for "§"
// (3GPP TS 23.038 §6.2.1): a peer that reads it so wouldn't know the name again. So
// "." is written for "_".
func MessageID(publicID string) string { return strings.ReplaceAll(publicID, "_", ".") }

// PublicID is the public ID of which a peer says the message_id.
func PublicID(messageID string) string { return strings.ReplaceAll(messageID, ".", "_") }
