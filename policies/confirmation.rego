package callgate.call

# Without a word in the data, what destroys is confirmed.
default confirmed_effects := ["destructive"]

confirmed_effects := data.callgate.confirm.effects

confirm contains reason if {
	input.tool.effect in confirmed_effects
	reason := sprintf("%s is %s", [input.call.name, input.tool.effect])
}

confirm contains reason if {
	input.call.name in data.callgate.confirm.tools
	reason := sprintf("%s is always confirmed", [input.call.name])
}

confirm contains reason if {
	some environment in environments
	environment in data.callgate.confirm.environments
	reason := sprintf("%s takes effect in %s", [input.call.name, environment])
}

# METADATA
# description: A person approved exactly this call.
approved if {
	input.approval.approved == true
	input.call.id in input.approval.calls
}
