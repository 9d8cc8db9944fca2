package imgate.services.border_test

import data.imgate.services.border

# between is a message to an address whose domain is of an environment. {}: none.
between(sender, recipient, domain) := {
	"sender": {"attributes": sender},
	"recipient": {"attributes": recipient},
	"match": {"attributes": domain},
}

red := {"environment": "red"}

blue := {"environment": "blue"}

open_to_red := {"blue": ["red"]}

test_passes_within_an_environment if {
	plan := border.plan with input as between(red, {}, red) with data.border.open as {}
	not plan.processing
	plan.charging == {}
	plan.labels.environment == "red"
}

test_stops_at_the_border if {
	plan := border.plan with input as between(red, {}, blue) with data.border.open as open_to_red
	plan.processing == "reject"
	plan.reason == "blocked"
}

test_passes_where_the_border_is_open_and_pays if {
	plan := border.plan with input as between(blue, {}, red) with data.border.open as open_to_red
	not plan.processing
	plan.charging == {"mode": "event", "destination": "border"}
}

test_lets_notifications_back if {
	every class, passes in {"notification": true, "text": false} {
		back := object.union(between(red, {}, {"environment": "blue"}), {"message": {"class": class}})
		plan := border.plan with input as back with data.border.open as open_to_red
		passes == is_delivered(plan)
	}
}

is_delivered(plan) if not plan.processing

else := false

test_prefers_the_account_to_the_domain if {
	plan := border.plan with input as between(red, red, blue) with data.border.open as {}
	not plan.processing
}

test_lets_nobody_through_who_belongs_nowhere if {
	every question in [between({}, {}, red), between(red, {}, {}), between({}, {}, {})] {
		plan := border.plan with input as question with data.border.open as open_to_red
		plan.processing == "reject"
	}
}
