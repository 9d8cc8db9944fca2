# METADATA
# title: Plain text, kept for a day
package imgate.services.hello

match := {"domains": ["sip.example.com"]}

plan.transports := ["sip"]

plan.mime.sip := ["text/plain"]

plan.charging.mode := "event"

plan.store := "24h"
