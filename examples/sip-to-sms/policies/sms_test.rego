package imgate.services.sms_test

import data.imgate.services.sms
import data.imgate.services.subscribers

test_numbers_only if {
	plan := sms.plan with input as {"recipient": {"user": "alice"}, "message": {"segments": 1}}
	plan.processing == "reject"
}

test_each_sms_is_paid_for if {
	plan := sms.plan with input as {"recipient": {"user": "+447700900123"}, "message": {"segments": 3}}
	plan.charging.units == 3
	not plan.processing
}

test_what_phones_write_is_paid_for_already if {
	plan := subscribers.plan with input as {"protocol": "smpp"}
	not plan.charging.mode
}

test_subscribers_pay_for_what_they_write if {
	plan := subscribers.plan with input as {"protocol": "sip"}
	plan.charging.mode == "event"
	plan.transports == ["sip"]
}
