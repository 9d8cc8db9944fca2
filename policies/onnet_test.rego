package imgate.services.onnet_test

import data.imgate.services.onnet

message(class) := {
	"message": {
		"id": "01890a5d-ac96-774b-bcce-b302099a8057",
		"type": "text/plain",
		"class": class,
		"size": 5,
	},
	"sender": {
		"account": "1001",
		"address": "1001@sip.example.com",
		"user": "1001",
		"domain": "sip.example.com",
		"local": true,
		"attributes": {},
	},
	"recipient": {
		"address": "1002@sip.example.com",
		"user": "1002",
		"domain": "sip.example.com",
		"local": true,
		"registered": true,
		"devices": 1,
	},
	"transport": "sip",
	"protocol": "sip",
	"peer": "192.0.2.1:5060",
	"time": "2026-01-02T03:04:05Z",
}

test_takes_every_domain if {
	onnet.match == {"domains": ["*"], "prefixes": [], "priority": 0}
}

test_delivers_to_phones_and_esmes if {
	plan := onnet.plan with input as message("text")
	plan.processing == "deliver"
	plan.transports == ["sip", "smpp-server"]
}

test_charges_a_text if {
	plan := onnet.plan with input as message("text")
	plan.charging == {"mode": "event"}
}

test_does_not_charge_what_comes_from_a_vendor if {
	sms := object.union(message("text"), {"sender": {"account": "vendor", "local": false}, "transport": "vendor"})
	plan := onnet.plan with input as sms
	not plan.charging.mode
}

test_does_not_charge_notices if {
	every class in ["composing", "notification"] {
		plan := onnet.plan with input as message(class)
		plan.processing == "deliver"
		not plan.charging.mode
	}
}

test_keeps_an_hour_and_answers_the_outcome if {
	plan := onnet.plan with input as message("text")
	plan.store == "1h"
	plan.answer == "delivered"
}

# The table of the product that we replace has five types over SIP, of these, and two
# over SMPP.
test_types if {
	plan := onnet.plan with input as message("text")
	plan.mime == {
		"sip": [
			"text/plain",
			"message/cpim",
			"text/html",
			"application/im-iscomposing+xml",
			"message/imdn+xml",
			"multipart/mixed",
			"multipart/alternative",
			"multipart/related",
			"application/x-acro-filetransfer+json",
		],
		"smpp": [
			"text/plain",
			"message/cpim",
		],
	}
}
