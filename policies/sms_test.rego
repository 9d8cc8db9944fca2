package imgate.services.sms_test

import data.imgate.services.sms

message(number, segments) := {
	"message": {"segments": segments, "type": "text/plain"},
	"recipient": {"user": number},
	"match": {"attributes": {"destination": "sms"}},
}

test_goes_over_smpp if {
	plan := sms.plan with input as message("447700900123", 1)
	not plan.processing
	plan.transports == ["smpp"]
	plan.mime == {"smpp": ["text/plain", "message/cpim"]}
	plan.answer == "accepted"
	plan.store == "24h"
}

test_charges_each_segment_that_arrives if {
	plan := sms.plan with input as message("+447700900123", 3)
	plan.charging == {"mode": "event", "when": "handover", "destination": "sms", "units": 3}
}

test_takes_numbers_only if {
	every user in ["alice", "12", "+44 7700 900123", "+", "4477009001234567"] {
		plan := sms.plan with input as message(user, 1)
		plan.processing == "reject"
		plan.reason == "unknown-recipient"
	}
}

test_takes_as_many_segments_as_the_data_says if {
	full := sms.plan with input as message("447700900123", 2) with data.sms.segments as 2
	not full.processing

	long := sms.plan with input as message("447700900123", 3) with data.sms.segments as 2
	long.processing == "reject"
	not long.charging.units
}

test_tries_again_for_a_day if {
	plan := sms.plan with input as message("447700900123", 1)
	plan.retry == {
		"attempts": 30,
		"backoff": ["10s", "1m", "5m", "15m", "1h"],
		"reasons": ["unavailable", "no-answer", "busy", "limit-reached", "overloaded"],
		"unknown": "retry",
	}
}
