# METADATA
# title: The tools that the model is shown
# description: What the caller may not call at all, the model need not know of.
package callgate.tools

import data.callgate.access

decision := {"hide": sort(hidden)}

hidden contains name if {
	some tool in input.tools
	not granted(tool)
	name := tool.name
}

granted(tool) if {
	some role in access.roles_of(input.principal)
	access.grants(role, tool)
}
