# METADATA
# title: What the tests of the policies have in common
# description: >-
#   Inputs, and the data that the rules are tested with, so that editing data.yaml breaks no test of a rule.
package callgate.given

# METADATA
# description: A registered tool.
tool(name, effect, labels) := {
	"registered": true,
	"name": name,
	"effect": effect,
	"labels": labels,
	"references": {},
	"tags": [],
}

# METADATA
# description: A tool that the registry does not know.
unregistered(name) := object.union(tool(name, "write", []), {"registered": false})

# METADATA
# description: The input of one call, alone in its turn, by a caller with these roles.
input_of(roles, spec, arguments) := {
	"principal": {"id": "alice", "roles": roles, "tenant": "", "claims": {}},
	"conversation": {"id": "c1", "query": "please", "turn": 1},
	"model": "some-model",
	"protocol": "chat",
	"batch": [{"id": "call_1", "name": spec.name, "arguments": arguments}],
	"history": {"calls": [], "labels": [], "counts": {}},
	"approval": null,
	"time": "2026-01-01T12:00:00Z",
	"call": {"id": "call_1", "name": spec.name, "arguments": arguments},
	"tool": spec,
}

# METADATA
# description: The decision under the data below.
decide(document) := answer if {
	answer := data.callgate.call.decision with input as document
		with data.callgate.roles as roles
		with data.callgate.environment_arguments as ["environment", "env"]
		with data.callgate.confirm as confirm
		with data.callgate.read_first as {"refund": {"tool": "get_order", "argument": "order_id"}}
		with data.callgate.parallel as parallel
		with data.callgate.untrusted_labels as ["untrusted"]
		with data.callgate.private_labels as ["private"]
		with data.callgate.after_untrusted as {"sending": "deny", "writing": "confirm"}
		with data.callgate.mask as {"send": ["/body"]}
		with data.callgate.suggest_from as ["reference.services"]
		with data.callgate.only as {}
		with data.reference as reference
}

# METADATA
# description: Decided to this effect, for exactly these reasons.
decided(document, effect, reasons) if decide(document) == {
	"effect": effect,
	"reasons": reasons,
	"obligations": {},
}

roles := {
	"default": {
		"tools": ["*"],
		"effects": ["read", "write", "destructive"],
		"environments": ["*"],
		"hosted": ["*"],
	},
	"reader": {"tools": ["get_user", "fetch"], "effects": ["read"], "hosted": ["web_search"]},
	"deleter": {"tools": ["delete_user"], "effects": ["read"]},
	"developer": {
		"tools": ["deploy"],
		"prefixes": ["dev_"],
		"effects": ["read", "write"],
		"environments": ["development", "staging"],
	},
	"operator": {"tools": ["deploy"], "effects": ["write"], "environments": ["production"]},
	"admin": {
		"tools": ["*"],
		"effects": ["read", "write", "destructive"],
		"environments": ["*"],
	},
}

confirm := {"effects": ["destructive"], "tools": ["pay"], "environments": ["production"]}

parallel := {"calls": {"destructive": 2}, "sums": {"pay": {"amount": 500}}}

reference := {
	"services": ["billing-api", "checkout", "search", "web-frontend"],
	"users": {"u-100": {}, "u-200": {}},
}
