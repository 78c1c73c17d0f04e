package callgate.request_test

import data.callgate.given

asking(roles, hosted) := answer if {
	answer := data.callgate.request.decision with input as {
		"principal": {"id": "alice", "roles": roles, "tenant": "", "claims": {}},
		"hosted": hosted,
	}
		with data.callgate.roles as given.roles
}

test_a_role_keeps_the_hosted_tools_that_it_lists if {
	asking(["reader"], ["web_search"]) == {"effect": "allow", "reasons": [], "strip": []}
}

test_other_hosted_tools_are_stripped if {
	asking(["reader"], ["web_search", "mcp"]) == {
		"effect": "allow",
		"reasons": ["role 'reader' may not use the hosted tool mcp"],
		"strip": ["mcp"],
	}
}

test_a_role_that_lists_none_keeps_none if {
	asking(["developer"], ["web_search"]).strip == ["web_search"]
}

test_without_a_role_all_are_kept if {
	asking([], ["web_search", "mcp"]).strip == []
}

test_an_incomplete_input_is_denied if {
	answer := data.callgate.request.decision with input as {}
	answer.effect == "deny"
}
