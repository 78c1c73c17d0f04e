# METADATA
# title: What the data hold as they are delivered
# description: Edit data.yaml, and these are the tests to edit with it.
package callgate.defaults_test

import data.callgate.given

decide(roles, spec, arguments) := answer if {
	answer := data.callgate.call.decision with input as given.input_of(roles, spec, arguments)
}

get_user := given.tool("get_user", "read", ["private"])

delete_user := given.tool("delete_user", "destructive", [])

deploy_service := object.union(
	given.tool("deploy_service", "write", ["deployment"]),
	{"references": {"service": "reference.services"}},
)

to(environment) := {"service": "checkout", "version": "1.4.2", "environment": environment}

test_an_application_without_roles_works_as_before if {
	decide([], given.unregistered("anything"), {"env": "production-like"}).effect == "allow"
	decide([], get_user, {"user_id": 42}).effect == "allow"
}

test_without_roles_what_destroys_is_confirmed if {
	decide([], delete_user, {"user_id": 42}).effect == "confirm"
}

test_a_viewer_reads_and_no_more if {
	decide(["viewer"], get_user, {"user_id": 42}).effect == "allow"
	decide(["viewer"], delete_user, {"user_id": 42}).reasons == ["role 'viewer' may not call delete_user"]
}

test_developers_deploy_to_staging_only if {
	decide(["developer"], deploy_service, to("staging")).effect == "allow"
	decide(["developer"], deploy_service, to("production")).effect == "deny"
}

test_operators_deploy_to_production_once_confirmed if {
	decide(["operator"], deploy_service, to("production")).effect == "confirm"
}

test_refunds_are_looked_up_first_and_limited_together if {
	refund := given.tool("refund_order", "write", [])
	decide(["support"], refund, {"order_id": "ORD-004217", "amount": 20}).effect == "reask"
	decide(["support"], refund, {"order_id": "ORD-004217", "amount": 501}).effect == "deny"
}

test_the_text_of_an_email_is_not_recorded if {
	send_email := given.tool("send_email", "write", ["sends"])
	decide(["support"], send_email, {"body": "x"}).obligations.mask == ["/body"]
}
