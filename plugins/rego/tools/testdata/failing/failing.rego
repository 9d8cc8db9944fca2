package imgate.services.failing

match := {"domains": ["failing.example.com"]}

plan.store := sprintf("%dx", [input.message.size])
