package callgate.references_test

import data.callgate.given

about(references, arguments) := given.input_of(
	["admin"],
	object.union(given.tool("status", "read", []), {"references": references}),
	arguments,
)

service(name) := about({"service": "reference.services"}, {"service": name})

user(id) := about({"user": "reference.users"}, {"user": id})

test_a_value_that_exists_passes if {
	given.decided(service("billing-api"), "allow", [])
}

test_a_value_that_is_a_key_passes if {
	given.decided(user("u-100"), "allow", [])
}

test_a_value_that_does_not_exist_is_asked_again if {
	given.decided(service("zzz"), "reask", ["service 'zzz' does not exist"])
}

test_did_you_mean if {
	cases := {
		"Billing API": "billing-api",
		"billing_api": "billing-api",
		"billing": "billing-api",
		"the-checkout-service": "checkout",
		"biling-api": "billing-api",
		"seach": "search",
	}
	every written, meant in cases {
		reason := sprintf("service '%s' does not exist: did you mean '%s'?", [written, meant])
		given.decided(service(written), "reask", [reason])
	}
}

# Lists that name people are not read out to whoever guesses.
test_only_lists_that_may_be_read_out_are_suggested_from if {
	given.decided(user("U100"), "reask", ["user 'U100' does not exist"])
}

test_each_of_several_values_has_to_exist if {
	given.decided(service(["checkout", "search"]), "allow", [])
	given.decided(service(["checkout", "zzz"]), "reask", ["service 'zzz' does not exist"])
}

test_a_value_of_another_kind_does_not_exist if {
	given.decided(service(7), "reask", ["service '7' does not exist"])
	given.decided(service(null), "reask", ["service 'null' does not exist"])
	given.decided(service({"a": 1}), "reask", ["service '{\"a\":1}' does not exist"])
	given.decided(user(7), "reask", ["user '7' does not exist"])
}

test_a_parameter_that_is_left_out_refers_to_nothing if {
	given.decided(about({"service": "reference.services"}, {}), "allow", [])
}

test_a_list_that_is_not_there_denies if {
	reason := "the values that service may have are not known to the policies"
	every path in ["reference.nowhere", "reference", "callgate.roles", ""] {
		given.decided(about({"service": path}, {"service": "checkout"}), "deny", [reason])
	}
}

# Alike on both engines: what is not given refers to nothing.
test_a_parameter_that_is_not_given_refers_to_no_list if {
	given.decided(about({"service": "reference.nowhere"}, {}), "allow", [])
}

test_a_long_value_is_shown_short if {
	long := concat("", ["x" | some _ in numbers.range(1, 500)])
	answer := given.decide(service(long))
	count(answer.reasons[0]) < 120
}

test_a_list_may_hold_other_values_than_text if {
	document := about({"service": "reference.services"}, {"service": "two"})
	answer := data.callgate.call.decision with input as document
		with data.callgate.roles as given.roles
		with data.callgate.suggest_from as ["reference.services"]
		with data.reference as {"services": [1, "two-b", null]}
	answer.reasons == ["service 'two' does not exist: did you mean 'two-b'?"]
}

test_no_guess_is_made_out_of_a_long_list if {
	document := about({"service": "reference.services"}, {"service": "v-7"})
	long := {sprintf("v%d", [i]): true | some i in numbers.range(1, 201)}
	answer := data.callgate.call.decision with input as document
		with data.callgate.roles as given.roles
		with data.callgate.suggest_from as ["reference.services"]
		with data.reference as {"services": long}
	answer.reasons == ["service 'v-7' does not exist"]
}

test_no_more_than_ten_reasons_are_given if {
	values := [sprintf("v%d", [i]) | some i in numbers.range(1, 50)]
	count(given.decide(service(values)).reasons) == 10
}
