package imgate.services.sms_test

import data.imgate.services.sms

# message is one of a subscriber's to a number that isn't one of ours.
message(segments) := {
	"message": {"segments": segments, "type": "text/plain", "missing": 0},
	"sender": {"local": true},
	"recipient": {"local": false},
	"match": {"attributes": {"destination": "sms"}},
}

to_us := {"recipient": {"local": true}}

from_a_vendor := {"sender": {"local": false}}

torn := {"message": {"missing": 2}}

changed(change) := object.union(message(3), change)

test_goes_over_smpp if {
	plan := sms.plan with input as message(1)
	not plan.processing
	plan.transports == ["smpp"]
	plan.mime == {"smpp": ["text/plain", "message/cpim"]}
	plan.answer == "accepted"
	plan.store == "24h"
}

test_charges_each_segment_that_arrives if {
	plan := sms.plan with input as message(3)
	plan.charging == {"mode": "event", "when": "handover", "destination": "sms", "units": 3}
}

test_delivers_to_our_own_numbers_on_net if {
	plan := sms.plan with input as changed(to_us) with data.sms.segments as 2
	not plan.processing
	plan.transports == ["sip", "smpp-server"]
	plan.charging == {"mode": "event", "when": "handover"}
}

test_a_vendor_s_sms_to_us_is_free if {
	plan := sms.plan with input as changed(object.union(to_us, from_a_vendor))
	not plan.processing
	plan.transports == ["sip", "smpp-server"]
	plan.charging == {"when": "handover"}
}

test_a_vendor_s_sms_goes_to_nobody_else if {
	every change in [from_a_vendor, object.union(from_a_vendor, torn)] {
		plan := sms.plan with input as changed(change)
		plan.processing == "reject"
		plan.reason == "unknown-recipient"
	}
}

test_half_a_message_goes_to_our_own_alone if {
	half := sms.plan with input as changed(torn)
	half.processing == "reject"
	half.reason == "incomplete"

	kept := sms.plan with input as changed(object.union(torn, to_us))
	not kept.processing
	not kept.reason
}

test_takes_as_many_segments_as_the_data_says if {
	full := sms.plan with input as message(2) with data.sms.segments as 2
	not full.processing

	long := sms.plan with input as message(3) with data.sms.segments as 2
	long.processing == "reject"
	not long.reason
	not long.charging.units
}

test_tries_again_for_a_day if {
	plan := sms.plan with input as message(1)
	plan.retry == {
		"attempts": 30,
		"backoff": ["10s", "1m", "5m", "15m", "1h"],
		"unknown": "retry",
	}
}
