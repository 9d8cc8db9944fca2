package imgate.services.sms

plan.transports := ["smpp"]

plan.charging := {"mode": "event", "destination": input.match.attributes.tariff}
