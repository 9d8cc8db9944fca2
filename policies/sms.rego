# METADATA
# title: SMS by domain
# description: |
#   A message to NUMBER@sms.example.com leaves as an SMS, over SMPP. There is no
#   match here: the rows of sms.yaml name this service, each with what it is
#   charged as.
package imgate.services.sms

# METADATA
# title: Only a number can get an SMS
plan.processing := "reject" if not is_phone_number

plan.reason := "unknown-recipient" if not is_phone_number

# METADATA
# title: Too long
plan.processing := "reject" if is_long

is_phone_number if regex.match(`^\+?[0-9]{3,15}$`, input.recipient.user)

is_long if input.message.segments > data.sms.segments

plan.transports := ["smpp"]

# SMS is text. Anything else is refused: 415, with this list.
plan.mime.smpp := ["text/plain", "message/cpim"]

# Each SMS of a longer text is paid for, when the vendor has taken it: that is when
# your vendor charges you. Write "delivery" to wait for the delivery receipt: what
# never arrives costs the sender nothing then.
plan.charging.mode := "event"

plan.charging.when := "handover"

plan.charging.destination := input.match.attributes.destination

plan.charging.units := input.message.segments if not is_long

# The sender isn't kept waiting: an SMS takes its time.
plan.answer := "accepted"

# A phone that is off gets it when it is on again, for a day.
plan.store := "24h"

# What the vendor can't take now is tried again, quickly at first. Whatever isn't
# named in reasons is final, even if the vendor calls it temporary.
plan.retry.backoff := ["10s", "1m", "5m", "15m", "1h"]

plan.retry.attempts := 30

plan.retry.reasons := ["unavailable", "no-answer", "busy", "limit-reached", "overloaded"]

# The vendor was silent, so that it may have the message: it may come twice. Write
# "fail" if one that doesn't come at all is the lesser evil.
plan.retry.unknown := "retry"
