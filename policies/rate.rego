# METADATA
# title: Campaigns with a rate for each number, and an opt-out by keyword
# description: |
#   A campaign's number writes to NUMBER@campaign.example.com, and whoever doesn't
#   want that writes STOP to 2424@campaign.example.com. A policy changes nothing,
#   so that message doesn't end anything by itself: it is delivered to the campaign
#   like any answer, with the label opt-out. Whoever keeps opted_out in
#   campaigns.yaml takes it from there; the next reload has it.
package imgate.services.rate

match := {"domains": ["campaign.example.com"]}

# The keyword is in the text.
asks := ["text"]

limits := {
	# Nobody sends more than this, campaign or not: the gateway refuses the rest,
	# and says for how long.
	"sender": {"key": "sender.account", "count": 600, "per": "1m"},
	# Only counted, for the rule below: without a count nothing is refused, so that
	# STOP always gets through.
	"number": {"key": ["sender.user", "recipient.user"], "per": "24h"},
}

# METADATA
# title: The recipient has opted out
plan.processing := "reject" if is_unwanted

plan.reason := "declined" if is_unwanted

# METADATA
# title: Enough of this campaign for today
plan.processing := "reject" if {
	campaign_from
	input.counters.number >= data.campaign_messages_a_day
}

is_unwanted if data.opted_out[campaign_from.name][input.recipient.user]

# METADATA
# title: A campaign writes, and doesn't just notify whoever has written to it
campaign_from := data.campaigns[input.sender.user] if input.message.class != "notification"

campaign_to := data.campaigns[input.recipient.user]

# METADATA
# title: STOP, or a word like it, and nothing else
plan.labels["opt-out"] := campaign_to.name if {
	word := lower(trim(input.message.text, " \t\r\n.!\"'"))
	word in campaign_to.stop
}

plan.labels.campaign := campaign_from.name

plan.labels.campaign := campaign_to.name if not campaign_from

# Campaigns pay for what they send, answers are free.
plan.charging.mode := "event" if campaign_from

plan.charging.when := "acceptance"

# Our own subscribers by SIP, and campaigns whose program is bound over SMPP,
# everybody else by SMS.
default plan.transports := ["smpp"]

plan.transports := ["sip", "smpp-server"] if input.recipient.local

# SMS is text; over SIP anything may go.
plan.mime.smpp := ["text/plain", "message/cpim"]

# Letters that the alphabet of phones lacks become like ones, č a c, so that an SMS
# holds 160 characters and not 70; what has none, such as Cyrillic, goes as it is.
plan.text := {"alphabets": ["gsm7", "ucs2"], "transliterate": "always"}

plan.answer := "accepted"

plan.store := "24h"
