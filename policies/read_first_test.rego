package callgate.read_first_test

import data.callgate.given

refund := given.tool("refund", "write", [])

after(calls) := object.union(
	given.input_of(["admin"], refund, {"order_id": "o-1"}),
	{"history": {"calls": calls, "labels": [], "counts": {}}},
)

past(name, arguments) := {"id": "call_0", "name": name, "arguments": arguments, "turn": 1}

reason := "call get_order with the same order_id first, to see what refund would change"

test_it_is_looked_up_before_it_is_changed if {
	given.decided(after([]), "reask", [reason])
}

test_what_was_looked_up_may_be_changed if {
	given.decided(after([past("get_order", {"order_id": "o-1"})]), "allow", [])
}

test_to_look_something_else_up_is_not_enough if {
	given.decided(after([past("get_order", {"order_id": "o-2"})]), "reask", [reason])
}

test_to_look_with_another_tool_is_not_enough if {
	given.decided(after([past("get_user", {"order_id": "o-1"})]), "reask", [reason])
}

test_a_past_call_without_readable_arguments_is_not_enough if {
	given.decided(after([past("get_order", "{order_id")]), "reask", [reason])
}

test_a_call_without_the_argument_has_looked_at_nothing if {
	document := object.union(
		given.input_of(["admin"], refund, {}),
		{"history": {"calls": [past("get_order", {})], "labels": [], "counts": {}}},
	)
	given.decided(document, "reask", [reason])
}

test_other_tools_need_no_look if {
	given.decided(given.input_of(["admin"], given.tool("note", "write", []), {}), "allow", [])
}
