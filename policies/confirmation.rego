package callgate.call

confirm contains reason if {
	input.tool.effect in data.callgate.confirm.effects
	reason := sprintf("%s is %s", [input.call.name, input.tool.effect])
}

# Without a word in the data, what destroys is confirmed.
confirm contains reason if {
	input.tool.effect == "destructive"
	not data.callgate.confirm.effects
	reason := sprintf("%s is destructive", [input.call.name])
}

confirm contains reason if {
	input.call.name in data.callgate.confirm.tools
	reason := sprintf("%s is always confirmed", [input.call.name])
}

confirm contains reason if {
	input.tool.effect != "read"
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
