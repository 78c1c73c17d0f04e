package callgate.tools_test

import data.callgate.given

offered(roles) := {
	"principal": {"id": "alice", "roles": roles, "tenant": "", "claims": {}},
	"tools": [
		given.tool("get_user", "read", []),
		given.tool("delete_user", "destructive", []),
		given.unregistered("anything"),
	],
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
