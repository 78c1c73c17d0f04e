package callgate.call

import data.callgate.access

# METADATA
# description: Where the call takes effect, as far as it writes and says so.
environments contains environment if {
	input.tool.effect != "read"
	some name in data.callgate.environment_arguments
	environment := input.call.arguments[name]
}

# METADATA
# description: One role grants tool, effect and every environment of the call together.
granted if {
	input.tool.effect == "read"
	some role in access.roles_of(input.principal)
	access.grants(role, input.tool)
}

granted if {
	input.tool.effect != "read"
	some role in access.roles_of(input.principal)
	access.grants(role, input.tool)
	every environment in environments {
		access.reaches(role, environment)
	}
}

deny contains reason if {
	not granted
	reason := sprintf("%s may not call %s%s", [access.called(input.principal), input.call.name, elsewhere])
}

default elsewhere := ""

elsewhere := sprintf(" in %s", [where]) if {
	some role in access.roles_of(input.principal)
	access.grants(role, input.tool)
	where := concat(", ", [shown(environment) | some environment in environments])
}

# A deployment that does not say where must not go to wherever the application thinks best.
reask contains reason if {
	"deployment" in input.tool.labels
	count(environments) == 0
	reason := sprintf("%s needs an environment: say which", [input.call.name])
}

# METADATA
# description: A value as a reason shows it, short.
shown(value) := substring(value, 0, 80) if is_string(value)

shown(value) := substring(json.marshal(value), 0, 80) if not is_string(value)
