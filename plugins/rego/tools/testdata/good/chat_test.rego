package imgate.services.chat_test

import data.imgate.services.chat

test_asks_nobody_for_a_pin if {
	plan := chat.plan with input as {"message": {"text": "Your PIN code?", "segments": 1}}
	plan.processing == "reject"
}

test_costs_in_work_hours if {
	plan := chat.plan with input as {"message": {"text": "Hi", "segments": 2}, "clock": {"weekday": "monday", "hour": 8}}
	plan.charging == {"mode": "event", "units": 2}
}
