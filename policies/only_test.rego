package callgate.only_test

import data.callgate.given

deciding(document, only) := answer if {
	answer := data.callgate.call.decision with input as document
		with data.callgate.roles as given.roles
		with data.callgate.confirm as {"effects": []}
		with data.callgate.only as only
		with data.reference as {"customers": {
			"C-1": {"tenant": "acme"},
			"C-2": {"tenant": "globex"},
			"C-3": {},
			"42": {"tenant": "acme"},
		}}
}

hours := {"hours": {
	"effects": ["destructive"],
	"tools": ["pay"],
	"days": ["Monday", "Friday"],
	"from": 8,
	"until": 17.5,
	"zone": "Europe/Berlin",
}}

at(time, spec) := object.union(given.input_of(["admin"], spec, {"amount": 1}), {"time": time})

delete_user := given.tool("delete_user", "destructive", [])

# The 5th of January 2026 is a Monday, and Berlin one hour ahead of UTC.
test_within_the_hours_it_goes_on if {
	every time in ["2026-01-05T07:00:00Z", "2026-01-05T16:29:59.999Z", "2026-01-09T12:00:00Z"] {
		deciding(at(time, delete_user), hours).effect == "allow"
	}
}

test_outside_the_hours_it_is_denied if {
	every time in [
		"2026-01-05T06:59:59Z",
		"2026-01-05T16:30:00Z",
		"2026-01-06T12:00:00Z",
		"2026-01-04T23:30:00Z",
	] {
		answer := deciding(at(time, delete_user), hours)
		answer.effect == "deny"
		answer.reasons == ["delete_user is limited to working hours"]
	}
}

test_summer_time_counts if {
	deciding(at("2026-07-06T06:00:00Z", delete_user), hours).effect == "allow"
	deciding(at("2026-07-06T15:30:00Z", delete_user), hours).effect == "deny"
}

test_a_tool_can_be_limited_by_name if {
	deciding(at("2026-01-06T12:00:00Z", given.tool("pay", "write", [])), hours).effect == "deny"
	deciding(at("2026-01-06T12:00:00Z", given.tool("get_user", "read", [])), hours).effect == "allow"
}

test_without_a_zone_the_hours_are_in_utc if {
	plain := {"hours": object.remove(hours.hours, ["zone"])}
	deciding(at("2026-01-05T07:59:59Z", delete_user), plain).effect == "deny"
	deciding(at("2026-01-05T08:00:00Z", delete_user), plain).effect == "allow"
}

# Half a limit is not no limit.
test_hours_that_are_not_all_there_are_never_open if {
	every part in ["days", "from", "until"] {
		document := at("2026-01-05T12:00:00Z", delete_user)
		deciding(document, {"hours": object.remove(hours.hours, [part])}).effect == "deny"
	}
}

test_a_slip_of_the_pen_in_the_data_denies if {
	document := at("2026-01-05T12:00:00Z", given.tool("get_user", "read", []))
	deciding(document, {"hour": {}}).reasons == ["only.hour in the policies' data has no meaning"]
	slips := {"tenants": {"argument": ["tenant"], "record": {}}}
	reason := "only.tenants.argument, record in the policies' data has no meaning"
	deciding(document, slips).reasons == [reason]
}

tenants := {"tenants": {
	"arguments": ["tenant"],
	"records": {"customer": "reference.customers"},
	"across": ["auditor"],
}}

get_customer := given.tool("get_user", "read", [])

asking(tenant, arguments) := object.union(
	given.input_of(["reader"], get_customer, arguments),
	{"principal": {"tenant": tenant}},
)

test_a_caller_reaches_what_is_its_tenant_s if {
	every arguments in [{}, {"other": "globex"}, {"tenant": "acme"}, {"customer": "C-1"}, {"customer": 42}] {
		deciding(asking("acme", arguments), tenants).effect == "allow"
	}
	deciding(asking("acme", {"customer": ["C-1", "42"]}), tenants).effect == "allow"
}

test_a_caller_does_not_reach_another_tenant if {
	answer := deciding(asking("acme", {"tenant": "globex"}), tenants)
	answer.reasons == ["tenant 'globex' is outside the caller's tenant"]
}

test_nor_its_records if {
	answer := deciding(asking("acme", {"customer": "C-2"}), tenants)
	answer.reasons == ["customer 'C-2' is outside the caller's tenant"]
}

test_others_are_not_told_from_what_does_not_exist if {
	every customer in ["C-2", "C-3", "C-9"] {
		reason := sprintf("customer '%s' is outside the caller's tenant", [customer])
		deciding(asking("acme", {"customer": customer}), tenants).reasons == [reason]
	}
}

test_one_of_several_is_enough if {
	deciding(asking("acme", {"customer": ["C-1", "C-2"]}), tenants).effect == "deny"
}

test_a_name_that_only_looks_alike_is_another if {
	every tenant in ["Acme", "acme ", "", null, 7, ["acme"], {"acme": 1}] {
		deciding(asking("acme", {"tenant": tenant}), tenants).effect == "deny"
	}
	every customer in [null, true, {"C-1": 1}, {"x": "C-1"}, [["C-1"]]] {
		deciding(asking("acme", {"customer": customer}), tenants).effect == "deny"
	}
}

test_a_caller_without_a_tenant_reaches_none if {
	deciding(asking("", {"tenant": "acme"}), tenants).effect == "deny"
	deciding(asking("", {"customer": "C-3"}), tenants).effect == "deny"
}

test_a_list_that_is_not_there_holds_nobody_s_records if {
	only := {"tenants": {"records": {"customer": "reference.clients"}}}
	deciding(asking("acme", {"customer": "C-1"}), only).effect == "deny"
}

test_a_role_may_reach_across_tenants if {
	document := object.union(asking("acme", {"tenant": "globex"}), {"principal": {"roles": ["auditor", "reader"]}})
	deciding(document, tenants).effect == "allow"
}
