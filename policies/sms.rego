# METADATA
# title: SMS by domain and by number
# description: |
#   A message to NUMBER@sms.example.com, or to a number without a domain, as ESMEs
#   and phones of other networks write to, leaves as an SMS, over SMPP; unless the
#   number is one of our subscribers', who gets it on-net. There is no match here:
#   the rows of sms.yaml name this service, each with what it is charged as.
#
#   It reads nothing of a message that differs from one to the next, so that its
#   plans are remembered, and thousands a second cost next to nothing: see "Fast" in
#   the README.
package imgate.services.sms

plan.processing := "reject" if is_transit

plan.processing := "reject" if is_torn

plan.processing := "reject" if is_long

plan.reason := "unknown-recipient" if is_transit

plan.reason := "incomplete" if {
	is_torn
	not is_transit
}

# METADATA
# title: What comes from a vendor doesn't go back to one
is_transit if {
	not input.recipient.local
	not input.sender.local
}

# METADATA
# title: Parts of it never came
# description: Nobody pays a vendor for half a message; our own subscribers get what there is.
is_torn if {
	not input.recipient.local
	input.message.missing > 0
}

# METADATA
# title: Too long
is_long if {
	not input.recipient.local
	input.message.segments > data.sms.segments
}

plan.transports := ["smpp"] if not input.recipient.local

# A number of ours: the subscriber's phones, or the ESME that has it.
plan.transports := ["sip", "smpp-server"] if input.recipient.local

# SMS is text. Anything else is refused: 415, with this list.
plan.mime.smpp := ["text/plain", "message/cpim"]

# The sender pays, if it is one of ours. An SMS from a phone of somebody else's has
# been paid for in its own network, and costs our subscriber nothing.
plan.charging.mode := "event" if input.sender.local

# Each SMS of a longer text is paid for, when the vendor has taken it: that is when
# your vendor charges you. Write "delivery" to wait for the delivery receipt: what
# never arrives costs the sender nothing then. On-net it is one message.
plan.charging.when := "handover"

plan.charging.destination := input.match.attributes.destination if not input.recipient.local

plan.charging.units := input.message.segments if {
	not input.recipient.local
	not is_long
}

# The sender isn't kept waiting: an SMS takes its time.
plan.answer := "accepted"

# A phone that is off gets it when it is on again, for a day.
plan.store := "24h"

# What the vendor can't take now is tried again, quickly at first. What is worth it
# says the vendor's answer, and errors in the vendor's section of the configuration.
plan.retry.backoff := ["10s", "1m", "5m", "15m", "1h"]

plan.retry.attempts := 30

# The vendor was silent, so that it may have the message: it may come twice. Write
# "fail" if one that doesn't come at all is the lesser evil.
plan.retry.unknown := "retry"
