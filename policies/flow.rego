package callgate.call

# METADATA
# description: The conversation has taken in content that an outsider may have written.
untrusted if {
	some label in input.history.labels
	label in data.callgate.untrusted_labels
}

# METADATA
# description: The conversation has taken in content that must not leave the house.
private if {
	some label in input.history.labels
	label in data.callgate.private_labels
}

sends if "sends" in input.tool.labels

deed := "sending" if {
	sends
	input.tool.effect != "read"
}

# Even a read sends something: a page can ask for the next page with a secret in its address.
deed := "sending" if {
	sends
	input.tool.effect == "read"
	private
}

deed := "writing" if {
	not sends
	input.tool.effect != "read"
}

# Without a word in the data, it is denied.
default after_untrusted := "deny"

after_untrusted := data.callgate.after_untrusted[deed]

confirm contains reason if {
	input.history.labels != []
	untrusted
	deed
	after_untrusted == "confirm"
	reason := sprintf("%s would act on content from an untrusted source", [input.call.name])
}

deny contains reason if {
	input.history.labels != []
	untrusted
	deed
	not after_untrusted in {"allow", "confirm"}
	reason := sprintf("%s may not be called after content from an untrusted source was read", [input.call.name])
}
