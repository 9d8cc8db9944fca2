package imgate.services.rewrite_test

import data.imgate.services.rewrite

numbering := {
	"country": "44",
	"short": {"100": "+442079460100"},
	"segments": 10,
	"anonymous": "+442079460999",
	"fallback": "+442079460555",
}

message(sender, attributes, recipient) := {
	"message": {"segments": 1},
	"sender": {"user": sender, "attributes": attributes},
	"recipient": {"user": recipient},
}

plan(question) := verdict if {
	verdict := rewrite.plan with input as question with data.numbering as numbering
}

test_match if rewrite.match == {"domains": ["dial.example.com"]}

test_numbers_become_international if {
	every dialled, number in {
		"100": "+442079460100",
		"07700900123": "+447700900123",
		"00447700900123": "+447700900123",
		"+4366412345678": "+4366412345678",
	} {
		plan(message("1001", {}, dialled)).rewrite == {"recipient": number}
	}
}

test_others_are_no_numbers if {
	every dialled in ["alice", "7", "000", "+0447700900123", ""] {
		refused := plan(message("1001", {}, dialled))
		refused.processing == "reject"
		refused.reason == "unknown-recipient"
	}
}

test_long_texts_are_refused if {
	full := plan(object.union(message("1001", {}, "100"), {"message": {"segments": 10}}))
	not full.processing
	full.charging.units == 10

	long := plan(object.union(message("1001", {}, "100"), {"message": {"segments": 11}}))
	long.processing == "reject"
	not long.reason
	not long.charging.units
}

test_senders_become_international if {
	plan(message("07700900456", {}, "100")).rewrite.sender == "+447700900456"
}

test_senders_can_hide if {
	plan(message("07700900456", {"hidden": "yes"}, "100")).rewrite.sender == "+442079460999"
}

test_failures_are_hidden_and_repaired if {
	accepted := plan(message("1001", {}, "100"))
	not accepted.processing
	accepted.answer == "accepted"
	accepted.store == "24h"
	accepted.transports == ["smpp"]
	accepted.mime == {"smpp": ["text/plain", "message/cpim"]}
	accepted.charging == {"mode": "event", "when": "handover", "units": 1}
	accepted.retry == {"attempts": 4, "backoff": ["10s", "1m", "5m"], "unknown": "fail"}
	accepted.fallback == {
		"transports": ["backup"],
		"reasons": ["unavailable", "no-answer", "undelivered", "forbidden", "overloaded"],
		"sender": "+442079460555",
	}
}
