# METADATA
# title: The tools that the provider runs itself
# description: >-
#   Web search, code interpreter, remote MCP servers and the like run where no call can be judged: those
#   that no role of the caller lists are taken out of the request.
package callgate.request

import data.callgate.access

default decision := {"effect": "deny", "reasons": ["no policy allows this request"], "strip": []}

decision := {"effect": "allow", "reasons": reasons, "strip": strip} if {
	is_array(input.principal.roles)
	is_array(input.hosted)
}

strip := sort({type | some type in input.hosted; not access.hosts(type)})

reasons := [sprintf("%s may not use the hosted tool %s", [access.called(input.principal), type]) | some type in strip]
