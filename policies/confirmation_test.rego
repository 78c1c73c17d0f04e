package callgate.confirmation_test

import data.callgate.given

delete_user := given.tool("delete_user", "destructive", [])

deletion := given.input_of(["admin"], delete_user, {"user_id": 42})

approved(approval) := object.union(deletion, {"approval": approval})

test_what_destroys_is_confirmed if {
	given.decided(deletion, "confirm", ["delete_user is destructive"])
}

test_what_reads_is_not_confirmed if {
	given.decided(given.input_of(["admin"], given.tool("get_user", "read", []), {}), "allow", [])
}

test_a_tool_can_be_confirmed_by_name if {
	document := given.input_of(["admin"], given.tool("pay", "write", []), {"amount": 1})
	given.decided(document, "confirm", ["pay is always confirmed"])
}

test_an_environment_can_be_confirmed if {
	document := given.input_of(["operator"], given.tool("deploy", "write", ["deployment"]), {"env": "production"})
	given.decided(document, "confirm", ["deploy takes effect in production"])
}

test_an_approval_of_this_call_is_enough if {
	given.decided(approved({"approved": true, "calls": ["call_1"]}), "allow", [])
}

test_an_approval_of_another_call_is_not if {
	given.decide(approved({"approved": true, "calls": ["call_2"]})).effect == "confirm"
}

test_what_was_not_approved_is_not if {
	every approval in [null, {}, {"approved": false, "calls": ["call_1"]}, {"approved": "true", "calls": ["call_1"]}] {
		given.decide(approved(approval)).effect == "confirm"
	}
}

test_an_approval_does_not_outweigh_a_denial if {
	document := given.input_of(["reader"], delete_user, {"user_id": 42})
	approval := {"approved": true, "calls": ["call_1"]}
	given.decide(object.union(document, {"approval": approval})).effect == "deny"
}

test_without_a_word_in_the_data_what_destroys_is_confirmed if {
	answer := data.callgate.call.decision with input as deletion
		with data.callgate.roles as given.roles
		with data.callgate.confirm as {}
	answer.effect == "confirm"
}
