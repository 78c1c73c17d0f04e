package callgate.request_test

import data.callgate.given

asking(roles, model) := answer if {
	answer := data.callgate.request.decision with input as {
		"principal": {"id": "alice", "roles": roles, "tenant": "", "claims": {}},
		"model": model,
	}
		with data.callgate.roles as given.roles
		with data.callgate.searching_models as ["-search-preview"]
}

test_any_role_may_use_a_model_that_only_answers if {
	asking(["developer"], "gpt-4o").effect == "allow"
}

test_a_role_that_lists_the_search_may_use_a_model_that_searches if {
	asking(["reader"], "gpt-4o-Search-Preview-2025-03-11").effect == "allow"
}

test_other_roles_may_not if {
	asking(["developer"], "gpt-4o-Search-Preview-2025-03-11") == {
		"effect": "deny",
		"reasons": ["role 'developer' may not use the model gpt-4o-Search-Preview-2025-03-11, which searches the web"],
	}
}

test_without_a_role_every_model_may_be_used if {
	asking([], "gpt-4o-search-preview").effect == "allow"
}

test_an_incomplete_input_is_denied if {
	answer := data.callgate.request.decision with input as {}
	answer.effect == "deny"
}

test_without_a_caller_nothing_is_allowed if {
	answer := data.callgate.request.decision with input as {"model": "gpt-4o"}
	answer.effect == "deny"
}
