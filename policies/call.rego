# METADATA
# title: The decision on one call
# description: >-
#   Every file of this package may add reasons to the sets deny, reask and confirm. One reason to deny
#   denies; then one to ask again asks again; then one to confirm asks a person; and only then is a call
#   allowed that some role grants.
package callgate.call

default decision := {"effect": "deny", "reasons": ["no policy allows this call"], "obligations": {}}

decision := {"effect": "deny", "reasons": listed(deny), "obligations": obligations} if {
	count(deny) > 0
} else := {"effect": "reask", "reasons": listed(reask), "obligations": obligations} if {
	count(reask) > 0
} else := {"effect": "confirm", "reasons": listed(confirm), "obligations": obligations} if {
	count(confirm) > 0
	not approved
} else := {"effect": "allow", "reasons": [], "obligations": obligations} if {
	granted
}

listed(reasons) := array.slice(sort(reasons), 0, 10)

obligations["mask"] := data.callgate.mask[input.call.name]

# What a rule would need and does not find must not open the door.
deny contains "what is known of the call is incomplete" if not complete

complete if {
	input.principal.roles
	input.batch
	input.history.calls
	input.history.labels
	input.tool.labels
	input.tool.references
	input.tool.name == input.call.name
}

deny contains "the arguments of the call cannot be read" if not is_object(input.call.arguments)
