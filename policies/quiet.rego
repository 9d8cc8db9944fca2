# METADATA
# title: Quiet hours and a do-not-disturb list
# description: |
#   Nobody is woken by a message: in the hours of quiet.yaml, or those that a
#   recipient has in dnd.yaml, it is refused, and its sender is told at once and
#   may try again in the morning. A policy is asked once, when a message comes in:
#   it can't hold one for a phone that is online now. It can keep one for a phone
#   that isn't: it comes when its owner goes online, by day or by night.
package imgate.services.quiet

match := {"domains": ["quiet.example.com"]}

# METADATA
# title: Quiet hours
plan.processing := "reject" if {
	is_quiet
	not is_urgent
	not is_kept
	not is_notification
}

plan.reason := data.quiet.reason

is_quiet if {
	some hours in hours_of_recipient
	within(hours)
}

hours_of_recipient := own if own := data.dnd[input.recipient.address]

else := data.quiet.hours

# METADATA
# title: Within a day, such as 13:00 to 15:00
within(hours) if {
	hours.from <= input.clock.time
	input.clock.time < hours.to
}

# METADATA
# title: Over midnight, such as 22:00 to 07:00; now it is before midnight
within(hours) if {
	hours.from > hours.to
	hours.from <= input.clock.time
}

# METADATA
# title: Over midnight; now it is after midnight
within(hours) if {
	hours.from > hours.to
	input.clock.time < hours.to
}

# METADATA
# title: An urgent sender
is_urgent if data.quiet.urgent[input.sender.address]

# METADATA
# title: The recipient isn't online
is_kept if {
	data.quiet.offline == "kept"
	not input.recipient.registered
}

# METADATA
# title: That a message has arrived, or was read, wakes nobody
is_notification if input.message.class == "notification"

plan.transports := ["sip"]

# Longer than any night.
plan.store := "16h"

# For reports: what came in quiet hours and wasn't refused.
plan.labels.hours := "quiet" if is_quiet
