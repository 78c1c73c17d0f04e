package callgate.access_test

import data.callgate.given

get_user := given.tool("get_user", "read", [])

delete_user := given.tool("delete_user", "destructive", [])

test_a_role_may_call_its_tools if {
	given.decided(given.input_of(["reader"], get_user, {"user_id": 1}), "allow", [])
}

test_a_role_may_call_no_other_tool if {
	document := given.input_of(["reader"], given.tool("get_order", "read", []), {})
	given.decided(document, "deny", ["role 'reader' may not call get_order"])
}

# Listing a tool is not enough where the registry says that it does more than the role may.
test_a_role_may_not_exceed_its_effects if {
	document := given.input_of(["deleter"], delete_user, {"user_id": 1})
	given.decided(document, "deny", ["role 'deleter' may not call delete_user"])
}

# One role has the tool, the other the effect: together they are still not one grant.
test_roles_do_not_add_up_to_a_grant if {
	document := given.input_of(["deleter", "developer"], delete_user, {"user_id": 1})
	reason := "a caller with the roles 'deleter', 'developer' may not call delete_user"
	given.decided(document, "deny", [reason])
}

test_any_one_role_is_enough if {
	given.decided(given.input_of(["deleter", "reader"], get_user, {"user_id": 1}), "allow", [])
}

test_a_role_that_is_not_defined_grants_nothing if {
	document := given.input_of(["stranger"], get_user, {"user_id": 1})
	given.decided(document, "deny", ["role 'stranger' may not call get_user"])
}

test_a_prefix_grants_the_tools_that_begin_so if {
	given.decided(given.input_of(["developer"], given.tool("dev_logs", "read", []), {}), "allow", [])
}

test_a_prefix_grants_no_tool_that_only_contains_it if {
	document := given.input_of(["developer"], given.tool("my_dev_logs", "read", []), {})
	given.decided(document, "deny", ["role 'developer' may not call my_dev_logs"])
}

test_without_a_role_the_default_role_holds if {
	given.decided(given.input_of([], get_user, {"user_id": 1}), "allow", [])
}

test_without_a_role_an_unknown_tool_is_allowed if {
	given.decided(given.input_of([], given.unregistered("anything"), {}), "allow", [])
}

test_without_a_default_role_a_caller_without_a_role_may_nothing if {
	document := given.input_of([], get_user, {"user_id": 1})
	reason := "a caller without a role may not call get_user"
	answer := data.callgate.call.decision with input as document with data.callgate.roles as {}
	answer.effect == "deny"
	answer.reasons == [reason]
}

# Nobody gets the default role beside a role of their own.
test_the_default_role_is_not_added_to_others if {
	document := given.input_of(["reader"], given.unregistered("anything"), {})
	given.decided(document, "deny", ["role 'reader' may not call anything"])
}

test_names_are_told_apart_by_case if {
	document := given.input_of(["reader"], given.tool("Get_User", "read", []), {})
	given.decided(document, "deny", ["role 'reader' may not call Get_User"])
}
