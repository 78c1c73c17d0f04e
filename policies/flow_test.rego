package callgate.flow_test

import data.callgate.given

after(labels, spec) := object.union(
	given.input_of(["admin"], spec, {"x": 1}),
	{"history": {"calls": [], "labels": labels, "counts": {}}},
)

mail := given.tool("mail", "write", ["sends"])

note := given.tool("note", "write", [])

fetch := given.tool("fetch", "read", ["untrusted", "sends"])

get_user := given.tool("get_user", "read", ["private"])

test_nothing_is_sent_after_untrusted_content if {
	reason := "mail may not be called after content from an untrusted source was read"
	given.decided(after(["untrusted"], mail), "deny", [reason])
}

test_writing_after_untrusted_content_is_confirmed if {
	reason := "note would act on content from an untrusted source"
	given.decided(after(["untrusted"], note), "confirm", [reason])
}

test_a_tool_that_nobody_described_counts_as_writing if {
	given.decide(after(["untrusted"], given.unregistered("anything"))).effect == "confirm"
}

test_reading_goes_on_after_untrusted_content if {
	given.decided(after(["untrusted"], get_user), "allow", [])
}

test_sending_and_writing_are_free_before if {
	given.decided(after([], mail), "allow", [])
	given.decided(after(["private"], mail), "allow", [])
	given.decided(after(["private"], note), "allow", [])
}

test_one_page_may_be_read_after_another if {
	given.decided(after(["untrusted"], fetch), "allow", [])
}

# The page asks for another page, with the user's data in its address.
test_no_page_is_read_after_untrusted_and_private_content if {
	given.decide(after(["untrusted", "private"], fetch)).effect == "deny"
}

test_an_action_that_is_misspelt_denies if {
	answer := data.callgate.call.decision with input as after(["untrusted"], note)
		with data.callgate.after_untrusted as {"sending": "deny", "writing": "comfirm"}
	answer.effect == "deny"
}

test_without_a_word_in_the_data_it_is_denied if {
	answer := data.callgate.call.decision with input as after(["untrusted"], note)
		with data.callgate.after_untrusted as {}
	answer.effect == "deny"
}

test_it_can_be_allowed if {
	answer := data.callgate.call.decision with input as after(["untrusted"], mail)
		with data.callgate.after_untrusted as {"sending": "allow", "writing": "allow"}
	answer.effect == "allow"
}
