# METADATA
# title: The tools that the model is shown, and those that the provider runs itself
# description: >-
#   What the caller may not call at all, the model need not know of. Web search, code interpreter, remote MCP
#   servers and the like run where no call can be judged: those that no role of the caller lists are taken out
#   of the request.
package callgate.tools

import data.callgate.access

decision := {"hide": sort(hidden), "hosted": hosted, "reasons": reasons} if is_array(input.hosted)

hidden contains name if {
	some tool in input.tools
	not granted(tool)
	name := tool.name
}

granted(tool) if {
	some role in access.roles_of(input.principal)
	access.grants(role, tool)
}

hosted := {type: "strip" | some type in input.hosted; not access.hosts(type)}

reasons := [sprintf("%s may not use the hosted tool %s", [access.called(input.principal), type]) |
	some type, _ in hosted
]
