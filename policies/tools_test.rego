package callgate.tools_test

import data.callgate.given

offered(roles) := {
	"principal": {"id": "alice", "roles": roles, "tenant": "", "claims": {}},
	"tools": [
		given.tool("get_user", "read", []),
		given.tool("delete_user", "destructive", []),
		given.unregistered("anything"),
	],
	"hosted": [],
}

hidden(roles) := answer.hide if {
	answer := data.callgate.tools.decision with input as offered(roles)
		with data.callgate.roles as given.roles
}

test_what_no_role_grants_is_hidden if {
	hidden(["reader"]) == ["anything", "delete_user"]
}

test_what_some_role_grants_is_shown if {
	hidden(["reader", "admin"]) == []
}

test_without_a_role_everything_is_shown if {
	hidden([]) == []
}

test_without_a_known_caller_everything_is_hidden if {
	answer := data.callgate.tools.decision with input as object.remove(offered([]), ["principal"])
		with data.callgate.roles as given.roles
	answer.hide == ["anything", "delete_user", "get_user"]
}

asking(roles, hosted) := answer if {
	answer := data.callgate.tools.decision with input as object.union(offered(roles), {"hosted": hosted})
		with data.callgate.roles as given.roles
}

test_a_role_keeps_the_hosted_tools_that_it_lists if {
	answer := asking(["reader"], ["web_search"])
	answer.hosted == {}
	answer.reasons == []
}

test_other_hosted_tools_are_stripped if {
	answer := asking(["reader"], ["web_search", "mcp"])
	answer.hosted == {"mcp": "strip"}
	answer.reasons == ["role 'reader' may not use the hosted tool mcp"]
}

test_a_role_that_lists_none_keeps_none if {
	asking(["developer"], ["web_search"]).hosted == {"web_search": "strip"}
}

test_without_a_role_all_are_kept if {
	asking([], ["web_search", "mcp"]).hosted == {}
}

test_without_a_known_caller_all_are_stripped if {
	answer := data.callgate.tools.decision with input as {"tools": [], "hosted": ["web_search"]}
	answer.hosted == {"web_search": "strip"}
}

test_without_a_list_of_hosted_tools_nothing_is_decided if {
	not data.callgate.tools.decision with input as object.remove(offered([]), ["hosted"])
}
