package imgate.services.rate_test

import data.imgate.services.rate

campaigns := {
	"2424": {"name": "spring", "stop": ["stop", "end"]},
	"2525": {"name": "summer", "stop": ["stop"]},
}

opted_out := {"spring": {"+447700900001": "2026-11-02"}}

# message is one that follows so many others of the pair within 24 hours.
message(sender, recipient, text, earlier) := {
	"message": {"class": "text", "text": text},
	"sender": {"user": sender},
	"recipient": {"user": recipient, "local": false},
	"counters": {"sender": 1, "number": earlier},
}

plan(question) := verdict if {
	verdict := rate.plan with input as question
		with data.campaigns as campaigns
		with data.opted_out as opted_out
		with data.campaign_messages_a_day as 3
}

test_match if rate.match == {"domains": ["campaign.example.com"]}

test_asks_for_the_text if rate.asks == ["text"]

test_limits_each_sender_and_counts_each_number if {
	rate.limits == {
		"sender": {"key": "sender.account", "count": 600, "per": "1m"},
		"number": {"key": ["sender.user", "recipient.user"], "per": "24h"},
	}
}

test_a_campaign_pays_for_what_it_sends if {
	sent := plan(message("2424", "+447700900123", "Sale!", 0))
	not sent.processing
	sent.charging == {"mode": "event", "when": "acceptance"}
	sent.labels == {"campaign": "spring"}
	sent.transports == ["smpp"]
	sent.mime == {"smpp": ["text/plain", "message/cpim"]}
	sent.text == {"alphabets": ["gsm7", "ucs2"], "transliterate": "always"}
	sent.answer == "accepted"
	sent.store == "24h"
}

test_a_number_gets_so_many_a_day if {
	not plan(message("2424", "+447700900123", "Sale!", 2)).processing
	plan(message("2424", "+447700900123", "Sale!", 3)).processing == "reject"
}

test_nobody_gets_more_who_has_opted_out if {
	unwanted := plan(message("2424", "+447700900001", "Sale!", 0))
	unwanted.processing == "reject"
	unwanted.reason == "declined"
}

test_a_campaign_may_notify_whoever_writes_to_it if {
	every recipient in ["+447700900123", "+447700900001"] {
		told := plan(object.union(message("2424", recipient, "", 9), {"message": {"class": "notification"}}))
		not told.processing
		not told.charging.mode
	}
}

test_keywords_are_labelled_and_delivered if {
	every text in ["STOP", "stop", " Stop.\r\n", "\"end\""] {
		said := plan(message("+447700900123", "2424", text, 9))
		not said.processing
		not said.charging.mode
		said.labels == {"campaign": "spring", "opt-out": "spring"}
	}
}

test_other_answers_are_answers if {
	every text in ["", "Don't stop", "stop it", "more"] {
		said := plan(message("+447700900123", "2424", text, 0))
		said.labels == {"campaign": "spring"}
	}
}

test_others_pass_without_a_label if {
	said := plan(message("+447700900123", "+447700900001", "stop", 9))
	not said.processing
	said.labels == {}
}

test_one_campaign_writes_to_another if {
	sent := plan(message("2424", "2525", "Sale!", 0))
	sent.labels == {"campaign": "spring"}
}

test_our_own_subscribers_and_campaigns_on_net if {
	question := object.union(message("2424", "1001", "Sale!", 0), {"recipient": {"local": true}})
	plan(question).transports == ["sip", "smpp-server"]
}
