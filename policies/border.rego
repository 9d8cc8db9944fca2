# METADATA
# title: The border of a virtual environment
# description: |
#   Several companies on one gateway, each an environment of its own: messages
#   stay in it, but where border.yaml opens the border. Its rows say which domain
#   is whose. Who belongs to none gets through nowhere.
package imgate.services.border

# METADATA
# title: The border is closed
plan.processing := "reject" if not may_pass

plan.reason := "blocked" if not may_pass

# METADATA
# title: Both are in the same environment
may_pass if from == to

# METADATA
# title: The border is open this way
may_pass if to in data.border.open[from]

# METADATA
# title: A notification goes back the way its message came
may_pass if {
	input.message.class == "notification"
	from in data.border.open[to]
}

# A sender's environment is an attribute of the account:
# imgate account add … --attribute environment=red
from := input.sender.attributes.environment

# A recipient's is that of the account, or else of the domain.
to := own if own := input.recipient.attributes.environment

else := input.match.attributes.environment

# Free at home, charged abroad.
plan.charging.mode := "event" if from != to

plan.charging.destination := "border" if from != to

plan.labels.environment := to
