# METADATA
# title: On-net instant messages
# description: |
#   Messages between our own subscribers, over SIP. It takes every domain; a
#   service with a domain of its own, or with a higher priority, goes before it.
package imgate.services.onnet

# Which messages this service decides about: those whose recipient is in one of
# the domains. "*" is any; write ["sip.example.com", "*.example.com"] to narrow it.
match := {"domains": ["*"], "prefixes": [], "priority": 0}

# deliver, reject (say why in plan.reason) or discard.
plan.processing := "deliver"

# How a message is delivered, the preferred way first.
plan.transports := ["sip"]

# What may go over SIP. Take a type out to refuse it: the sender is told 415 and
# which types would pass.
plan.mime.sip := [
	"text/plain",
	"message/cpim",
	"text/html",
	"application/im-iscomposing+xml", # "is typing"
	"application/x-acro-filetransfer+json", # file transfer between Acrobits softphones
]

# What may go over SMPP: SMS knows text only.
plan.mime.smpp := [
	"text/plain",
	"message/cpim",
]

# Each message that is delivered is charged once; "is typing" costs nothing.
plan.charging.mode := "event" if input.message.class != "composing"

# How long a message waits for a recipient who is not registered.
plan.store := "1h"

# delivered: the sender waits for the first outcome and learns whether the
# message has arrived. accepted: it is told at once that we have the message.
plan.answer := "delivered"
