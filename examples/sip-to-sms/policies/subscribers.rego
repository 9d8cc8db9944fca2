# METADATA
# title: Our subscribers
# description: |
#   Everything else is for a subscriber, over SIP: among them what phones write to
#   their numbers. The sender's vendor has paid for that.
package imgate.services.subscribers

match := {"domains": ["*"]}

plan.transports := ["sip"]

plan.mime.sip := ["text/plain", "message/cpim"]

plan.charging.mode := "event" if input.protocol == "sip"

plan.store := "24h"
