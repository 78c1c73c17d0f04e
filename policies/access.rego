# METADATA
# title: Who may do what
# description: >-
#   Least privilege by role. The roles stand in data.callgate.roles; what no role grants is not granted.
package callgate.access

# METADATA
# description: The caller's roles. A caller without any role has the role "default".
roles := ["default"] if {
	count(input.principal.roles) == 0
} else := input.principal.roles

# METADATA
# description: Whether a role may call a tool, wherever that takes effect.
grants(role, tool) if {
	spec := data.callgate.roles[role]
	tool.effect in spec.effects
	names(spec, tool.name)
}

names(spec, name) if {
	some entry in ["*", name]
	entry in spec.tools
} else if {
	strings.any_prefix_match(name, spec.prefixes)
}

# METADATA
# description: Whether a role may write in an environment.
reaches(role, environment) if {
	some entry in ["*", environment]
	entry in data.callgate.roles[role].environments
}

# METADATA
# description: Whether some role of the caller may use a tool that the provider runs itself.
hosts(type) if {
	some role in roles
	some entry in ["*", type]
	entry in data.callgate.roles[role].hosted
}

# METADATA
# description: The caller, as a reason names it.
who := "a caller without a role" if {
	count(input.principal.roles) == 0
} else := sprintf("role '%s'", input.principal.roles) if {
	count(input.principal.roles) == 1
} else := sprintf("a caller with the roles '%s'", [concat("', '", input.principal.roles)])
