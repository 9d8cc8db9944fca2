# METADATA
# title: Numbers rewritten, failures hidden and repaired
# description: |
#   People dial as they are used to, and vendors get international numbers. The
#   sender is told that the message is accepted, whatever follows: it is tried
#   again, and at last through another vendor under another number.
package imgate.services.rewrite

match := {"domains": ["dial.example.com"]}

# METADATA
# title: Not a number that anybody could dial
plan.processing := "reject" if not number

plan.reason := "unknown-recipient" if not number

# METADATA
# title: Too long
plan.processing := "reject" if is_long

is_long if input.message.segments > data.numbering.segments

# METADATA
# title: The number in full
plan.rewrite.recipient := number

number := behind if behind := data.numbering.short[input.recipient.user]

else := international(input.recipient.user)

# 00 44 7700 900123
international(dialled) := concat("", ["+", substring(dialled, 2, -1)]) if {
	regex.match(`^00[1-9][0-9]{6,14}$`, dialled)
}

# 0 7700 900123
international(dialled) := concat("", ["+", data.numbering.country, substring(dialled, 1, -1)]) if {
	regex.match(`^0[1-9][0-9]{5,12}$`, dialled)
}

# +44 7700 900123
international(dialled) := dialled if regex.match(`^\+[1-9][0-9]{6,14}$`, dialled)

# METADATA
# title: A hidden sender
plan.rewrite.sender := data.numbering.anonymous if is_hidden

# METADATA
# title: The sender's number in full
plan.rewrite.sender := international(input.sender.user) if not is_hidden

# imgate account add … --attribute hidden=yes
is_hidden if input.sender.attributes.hidden == "yes"

plan.transports := ["smpp"]

plan.mime.smpp := ["text/plain", "message/cpim"]

# Accepted, and no word of what follows: that is what hides a failure. It is paid
# for when a vendor has taken it.
plan.answer := "accepted"

plan.charging.mode := "event"

plan.charging.when := "handover"

plan.charging.units := input.message.segments if not is_long

plan.store := "24h"

# Four attempts within ten minutes, then the fallback.
plan.retry.attempts := 4

plan.retry.backoff := ["10s", "1m", "5m"]

# A vendor that was silent may have sent it: the fallback would send it again.
plan.retry.unknown := "fail"

# Another vendor, an instance called backup in the configuration, for what may be
# the first one's fault. A number that doesn't exist exists nowhere.
plan.fallback.transports := ["backup"]

plan.fallback.reasons := ["unavailable", "no-answer", "undelivered", "forbidden", "overloaded"]

plan.fallback.sender := data.numbering.fallback
