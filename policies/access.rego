# METADATA
# title: Who may do what
# description: >-
#   Least privilege by role. The roles stand in data.callgate.roles; what no role grants is not granted.
package callgate.access

# METADATA
# description: >-
#   A caller's roles. A caller without any role has the role "default". Other packages are given functions:
#   where one rule of another package is read, the embedded engine works out all of them.
roles_of(principal) := roles if {
	roles := principal.roles
	roles != []
} else := ["default"]

# METADATA
# description: Whether a role may call a tool, wherever that takes effect.
grants(role, tool) if {
	spec := data.callgate.roles[role]
	tool.effect in spec.effects
	names(spec, tool.name)
}

names(spec, name) if {
	name in spec.tools
} else if {
	"*" in spec.tools
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
	some role in roles_of(input.principal)
	some entry in ["*", type]
	entry in data.callgate.roles[role].hosted
}

# METADATA
# description: A caller, as a reason names it.
called(principal) := "a caller without a role" if {
	count(principal.roles) == 0
} else := sprintf("role '%s'", roles) if {
	roles := principal.roles
	count(roles) == 1
} else := sprintf("a caller with the roles '%s'", [concat("', '", roles)]) if {
	roles := principal.roles
}
