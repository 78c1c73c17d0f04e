# METADATA
# title: Models that search by themselves
# description: >-
#   Some models search the web without being offered a tool for it: their names alone tell. Such a model is for
#   callers with a role that lists web_search.
package callgate.request

import data.callgate.access

default decision := {"effect": "deny", "reasons": ["no policy allows this request"]}

decision := {"effect": "deny", "reasons": [reason]} if {
	searches(input.model)
	not access.hosts("web_search")
	reason := sprintf("%s may not use the model %s, which searches the web", [
		access.called(input.principal),
		input.model,
	])
} else := {"effect": "allow"} if {
	is_array(input.principal.roles)
	is_string(input.model)
}

searches(model) if {
	some part in data.callgate.searching_models
	contains(lower(model), part)
}
