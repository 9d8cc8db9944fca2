# METADATA
# title: Messages between our own subscribers
package imgate.services.chat

match := {"domains": ["sip.example.com", "*.sip.example.com"], "priority": 10}

asks := ["text"]

limits := {"per_sender": {"key": "sender.account", "count": 10, "per": "1m"}}

# METADATA
# title: Nobody is asked for their PIN
plan.processing := "reject" if contains(lower(input.message.text), "pin code")

plan.reason := "blocked"

plan.mime.sip := ["text/plain", "message/cpim"]

plan.charging := {"mode": "event", "units": input.message.segments} if is_peak

# METADATA
# title: Work hours on the operator's clock
is_peak if {
	input.clock.weekday != "sunday"
	input.clock.hour in [8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
}

plan.store := "72h" if not input.recipient.registered
