# METADATA
# title: SMS
# description: |
#   A message to NUMBER@sms.example.com leaves over SMPP, and so does one to a number
#   that no subscriber of ours has. The subscriber pays for each SMS that the
#   vendor has taken.
package imgate.services.sms

match := {"domains": ["sms.example.com"]}

plan.processing := "reject" if not regex.match(`^\+?[0-9]{3,15}$`, input.recipient.user)

plan.reason := "unknown-recipient"

plan.transports := ["smpp"]

plan.mime.smpp := ["text/plain", "message/cpim"]

plan.charging := {"mode": "event", "when": "handover", "destination": "sms", "units": input.message.segments}

plan.answer := "accepted"

plan.store := "24h"

# The SMSC was silent, so that it may have the message: it may come twice.
plan.retry.unknown := "retry"
