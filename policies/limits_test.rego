package callgate.limits_test

import data.callgate.given

remove := given.tool("remove", "destructive", [])

pay := given.tool("pay", "write", [])

# The first of these calls, judged with all of them in its turn.
together(spec, arguments) := object.union(
	given.input_of(["admin"], spec, arguments[0]),
	{"batch": [call | some i, args in arguments; call := {"id": sprintf("call_%d", [i]), "name": spec.name, "arguments": args}]},
)

test_what_destroys_may_run_a_few_times_at_once if {
	given.decide(together(remove, [{"n": 1}, {"n": 2}])).effect == "confirm"
}

test_what_destroys_may_not_run_more_often if {
	reason := "remove may be called at most 2 times in one turn, not 3"
	given.decided(together(remove, [{"n": 1}, {"n": 2}, {"n": 3}]), "reask", [reason])
}

test_other_effects_are_not_counted if {
	given.decide(together(given.tool("note", "write", []), [{}, {}, {}, {}])).effect == "allow"
}

test_calls_of_other_tools_are_not_counted if {
	document := object.union(together(remove, [{"n": 1}]), {"batch": [
		{"id": "call_0", "name": "remove", "arguments": {"n": 1}},
		{"id": "call_1", "name": "other", "arguments": {}},
		{"id": "call_2", "name": "other", "arguments": {}},
	]})
	given.decide(document).effect == "confirm"
}

test_a_sum_within_the_limit_passes if {
	given.decide(together(pay, [{"amount": 250}, {"amount": 250}])).effect == "confirm"
}

# Each of them alone would pass.
test_a_sum_is_taken_over_all_calls_of_the_turn if {
	reason := "amount in all calls of pay in one turn may come to at most 500, not 501"
	given.decided(together(pay, [{"amount": 250}, {"amount": 251}]), "deny", [reason])
}

test_a_negative_amount_makes_no_room if {
	given.decide(together(pay, [{"amount": 600}, {"amount": -600}])).effect == "deny"
}

test_what_cannot_be_added_up_is_denied if {
	every amount in ["100", null, [100], true] {
		reason := "amount of pay must be a number in every call of the turn"
		given.decided(together(pay, [{"amount": 1}, {"amount": amount}]), "deny", [reason])
	}
	given.decide(together(pay, [{"amount": 1}, {}])).effect == "deny"
}
