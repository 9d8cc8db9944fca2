package imgate.services.quiet_test

import data.imgate.services.quiet

night := {
	"hours": [{"from": "22:00", "to": "07:00"}],
	"reason": "unavailable",
	"offline": "kept",
	"urgent": {"alarm@quiet.example.com": "the fire brigade"},
}

busy := {"1002@quiet.example.com": [{"from": "13:00", "to": "15:00"}]}

at(hour, recipient) := {
	"clock": {"time": hour},
	"sender": {"address": "1001@quiet.example.com"},
	"recipient": {"address": recipient, "registered": true},
}

plan(question) := verdict if {
	verdict := quiet.plan with input as question with data.quiet as night with data.dnd as busy
}

test_match if quiet.match == {"domains": ["quiet.example.com"]}

test_refuses_over_midnight if {
	every hour in ["22:00:00", "23:59:59", "00:00:00", "06:59:59"] {
		refused := plan(at(hour, "1009@quiet.example.com"))
		refused.processing == "reject"
		refused.reason == "unavailable"
	}
}

test_delivers_by_day if {
	every hour in ["07:00:00", "12:00:00", "21:59:59"] {
		not plan(at(hour, "1009@quiet.example.com")).processing
	}
}

test_knows_who_does_not_want_to_be_disturbed if {
	plan(at("13:00:00", "1002@quiet.example.com")).processing == "reject"
	plan(at("14:59:59", "1002@quiet.example.com")).processing == "reject"
	not plan(at("15:00:00", "1002@quiet.example.com")).processing
	not plan(at("23:00:00", "1002@quiet.example.com")).processing
}

test_lets_urgent_senders_through if {
	question := object.union(at("23:00:00", "1009@quiet.example.com"), {"sender": {"address": "alarm@quiet.example.com"}})
	urgent := plan(question)
	not urgent.processing
	urgent.labels.hours == "quiet"
}

test_keeps_what_wakes_nobody if {
	offline := object.union(at("23:00:00", "1009@quiet.example.com"), {"recipient": {"registered": false}})
	kept := plan(offline)
	not kept.processing
	kept.store == "16h"
	kept.transports == ["sip"]
}

test_lets_notifications_through if {
	told := plan(object.union(at("23:00:00", "1009@quiet.example.com"), {"message": {"class": "notification"}}))
	not told.processing
	refused := plan(object.union(at("23:00:00", "1009@quiet.example.com"), {"message": {"class": "text"}}))
	refused.processing == "reject"
}

test_keeps_nothing_if_the_data_says_so if {
	offline := object.union(at("23:00:00", "1009@quiet.example.com"), {"recipient": {"registered": false}})
	refused := quiet.plan with input as offline
		with data.quiet as object.union(night, {"offline": "refused"})
		with data.dnd as busy
	refused.processing == "reject"
}
