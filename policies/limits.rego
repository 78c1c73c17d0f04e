package callgate.call

# METADATA
# description: The calls of this turn to the same tool. They are judged together, so that no split gets past.
same_tool := [call | some call in input.batch; call.name == input.call.name]

reask contains reason if {
	most := data.callgate.parallel.calls[input.tool.effect]
	count(same_tool) > most
	reason := sprintf("%s may be called at most %d times in one turn, not %d", [
		input.call.name,
		most,
		count(same_tool),
	])
}

deny contains reason if {
	some argument, most in data.callgate.parallel.sums[input.call.name]
	numbers_of(argument)
	total := sum([abs(call.arguments[argument]) | some call in same_tool])
	total > most
	reason := sprintf("%s in all calls of %s in one turn may come to at most %v, not %v", [
		argument,
		input.call.name,
		most,
		total,
	])
}

# What cannot be added up cannot be limited.
deny contains reason if {
	some argument, _ in data.callgate.parallel.sums[input.call.name]
	not numbers_of(argument)
	reason := sprintf("%s of %s must be a number in every call of the turn", [argument, input.call.name])
}

numbers_of(argument) if {
	every call in same_tool {
		is_number(call.arguments[argument])
	}
}
