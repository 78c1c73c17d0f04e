package callgate.environments_test

import data.callgate.given

deploy := given.tool("deploy", "write", ["deployment"])

to(roles, environment) := given.input_of(roles, deploy, {"environment": environment})

test_a_role_deploys_to_its_environments if {
	given.decided(to(["developer"], "staging"), "allow", [])
}

test_a_role_deploys_to_no_other_environment if {
	reason := "role 'developer' may not call deploy in production"
	given.decided(to(["developer"], "production"), "deny", [reason])
}

test_a_name_that_only_looks_like_the_environment_is_another if {
	every environment in ["Staging", "staging ", "prod", "", null, 7, ["staging"], {"a": "staging"}] {
		given.decide(to(["developer"], environment)).effect == "deny"
	}
}

test_an_environment_is_limited_under_each_of_its_parameters if {
	document := given.input_of(["developer"], deploy, {"environment": "staging", "env": "production"})
	given.decided(document, "deny", ["role 'developer' may not call deploy in production, staging"])
}

# Else the two roles would reach more together than either was given.
test_one_role_has_to_reach_every_environment if {
	document := given.input_of(["developer", "operator"], deploy, {"environment": "staging", "env": "production"})
	given.decide(document).effect == "deny"
}

test_a_deployment_has_to_say_where if {
	document := given.input_of(["developer"], deploy, {})
	given.decided(document, "reask", ["deploy needs an environment: say which"])
}

test_a_role_without_environments_deploys_nowhere if {
	document := given.input_of(["reader"], given.tool("fetch", "write", []), {"environment": "staging"})
	given.decide(document).effect == "deny"
}

test_reading_is_not_limited_by_environment if {
	document := given.input_of(["developer"], given.tool("dev_logs", "read", []), {"environment": "production"})
	given.decided(document, "allow", [])
}

test_an_asterisk_is_every_environment if {
	given.decided(to(["admin"], "anywhere"), "allow", [])
}
