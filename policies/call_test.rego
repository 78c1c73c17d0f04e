package callgate.call_test

import data.callgate.given

get_user := given.tool("get_user", "read", [])

call := given.input_of(["reader"], get_user, {"user_id": 1})

test_what_is_granted_and_not_objected_to_is_allowed if {
	given.decided(call, "allow", [])
}

test_nothing_at_all_is_denied if {
	data.callgate.call.decision.effect == "deny" with input as {}
}

# A part that is missing might be the part that a rule would have objected to.
test_an_incomplete_input_is_denied if {
	every part in ["principal", "batch", "history", "call", "tool"] {
		given.decide(object.remove(call, [part])).effect == "deny"
	}
}

test_the_description_of_another_tool_is_denied if {
	other := object.union(call, {"tool": given.tool("fetch", "read", [])})
	given.decided(other, "deny", ["what is known of the call is incomplete"])
}

test_arguments_that_cannot_be_read_are_denied if {
	unreadable := given.input_of(["reader"], get_user, null)
	given.decided(unreadable, "deny", ["the arguments of the call cannot be read"])
}

test_a_denial_comes_before_all_else if {
	delete_user := given.tool("delete_user", "destructive", ["deployment"])
	given.decide(given.input_of(["reader"], delete_user, {"user_id": 1})).effect == "deny"
}

test_asking_again_comes_before_asking_a_person if {
	destroy := given.tool("destroy", "destructive", ["deployment"])
	given.decided(given.input_of(["admin"], destroy, {}), "reask", ["destroy needs an environment: say which"])
}

test_several_reasons_are_given_in_order if {
	document := object.union(
		given.input_of(["reader"], given.tool("send", "write", ["sends"]), {"body": "x"}),
		{"history": {"calls": [], "labels": ["untrusted"], "counts": {}}},
	)
	given.decide(document).reasons == [
		"role 'reader' may not call send",
		"send may not be called after content from an untrusted source was read",
	]
}

test_what_the_record_must_not_show_is_masked_whatever_is_decided if {
	send := given.tool("send", "write", ["sends"])
	given.decide(given.input_of(["admin"], send, {"body": "x"})) == {
		"effect": "allow",
		"reasons": [],
		"obligations": {"mask": ["/body"]},
	}
	given.decide(given.input_of(["reader"], send, {"body": "x"})).obligations == {"mask": ["/body"]}
}
