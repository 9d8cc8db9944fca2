package imgate.services.one

match := {"domains": ["one.example.com"]}

plan.processing := "deliver" if input.mesage.size > 3

plan.storre := "1h"
