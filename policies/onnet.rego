# METADATA
# title: On-net instant messages
# description: |
#   Messages to our own subscribers: phones that registered over SIP, and ESMEs,
#   the programs that are bound over SMPP. It takes every domain, and numbers
#   without one; a service with a domain of its own, or with a higher priority,
#   goes before it.
package imgate.services.onnet

# Which messages this service decides about: those whose recipient is in one of
# the domains. "*" is any; write ["sip.example.com", "*.example.com"] to narrow it.
match := {"domains": ["*"], "prefixes": [], "priority": 0}

# deliver, reject (say why in plan.reason) or discard. A text that came in parts of
# which some never came is delivered too, with […] in their place; for those,
# input.message.missing is greater than 0.
plan.processing := "deliver"

# How a message is delivered, the preferred way first. One that the configuration
# doesn't have is passed over.
plan.transports := ["sip", "smpp-server"]

# What may go over SIP. Take a type out to refuse it: the sender is told 415 and
# which types would pass.
plan.mime.sip := [
	"text/plain",
	"message/cpim",
	"text/html",
	"application/im-iscomposing+xml", # "is typing"
	"message/imdn+xml", # "delivered", "displayed"; most clients put it into a message/cpim
	"multipart/mixed",
	"multipart/alternative",
	"multipart/related",
	"application/x-acro-filetransfer+json", # file transfer between Acrobits softphones
]

# What may go over SMPP: SMS knows text only.
plan.mime.smpp := [
	"text/plain",
	"message/cpim",
]

# Each message that is delivered is charged once, to its sender; "is typing" and
# "delivered" cost nothing, nor does an SMS from a phone of somebody else's: its
# network has been paid, and the recipient doesn't pay.
plan.charging.mode := "event" if {
	input.message.class == "text"
	input.sender.local
}

# How long a message waits for a recipient who is not registered.
plan.store := "1h"

# delivered: the sender waits for the first outcome and learns whether the
# message has arrived. accepted: it is told at once that we have the message.
plan.answer := "delivered"
