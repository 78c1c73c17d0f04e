package callgate.call

reask contains reason if {
	look := data.callgate.read_first[input.call.name]
	not looked_at(look)
	reason := sprintf("call %s with the same %s first, to see what %s would change", [
		look.tool,
		look.argument,
		input.call.name,
	])
}

looked_at(look) if {
	some call in input.history.calls
	call.name == look.tool
	call.arguments[look.argument] == input.call.arguments[look.argument]
}
