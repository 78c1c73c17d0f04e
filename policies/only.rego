package callgate.call

# What is allowed only within bounds. This one rule is all that is worked out where the data set none.
deny contains reason if {
	some kind, _ in data.callgate.only
	some reason in beyond(kind)
}

known_bounds := {
	"hours": {"effects", "tools", "days", "from", "until", "zone"},
	"tenants": {"arguments", "records", "across"},
}

# A slip of the pen must not open the door.
beyond(kind) := {reason} if {
	not known_bounds[kind]
	reason := sprintf("only.%s in the policies' data has no meaning", [kind])
} else := {reason} if {
	known := known_bounds[kind]
	slips := {part | some part, _ in data.callgate.only[kind]; not part in known}
	count(slips) > 0
	reason := sprintf("only.%s.%s in the policies' data has no meaning", [kind, concat(", ", slips)])
} else := {reason} if {
	kind == "hours"
	hours := data.callgate.only.hours
	timed(hours)
	not open(hours)
	reason := sprintf("%s is limited to working hours", [input.call.name])
} else := reasons if {
	kind == "tenants"
	not across
	reasons := {sprintf("%s '%s' is outside the caller's tenant", [argument, shown(value)]) |
		some argument in (foreign_names | foreign_records)
		value := input.call.arguments[argument]
	}
}

timed(hours) if input.tool.effect in hours.effects

timed(hours) if input.call.name in hours.tools

open(hours) if {
	moment := [time.parse_rfc3339_ns(input.time), object.get(hours, "zone", "UTC")]
	time.weekday(moment) in hours.days
	[hour, minute, _] := time.clock(moment)
	now := hour + (minute / 60)
	hours.from <= now
	now < hours.until
}

# METADATA
# description: The arguments that name another tenant than the caller's.
foreign_names contains argument if {
	some argument in data.callgate.only.tenants.arguments
	input.call.arguments[argument] != input.principal.tenant
}

# METADATA
# description: >-
#   The arguments that name a record which is not known to be the caller's tenant's. What belongs to others
#   is not told from what does not exist.
foreign_records contains argument if {
	some argument, path in data.callgate.only.tenants.records
	value := input.call.arguments[argument]
	not owned(values_at(path), value)
}

owned(records, value) if {
	not is_array(value)
	of_tenant(records, value)
}

owned(records, value) if {
	is_array(value)
	every one in value {
		of_tenant(records, one)
	}
}

of_tenant(records, value) if {
	is_object(records)
	input.principal.tenant != ""
	records[key(value)].tenant == input.principal.tenant
}

# Keys of data are text.
key(value) := value if is_string(value)

key(value) := sprintf("%v", [value]) if is_number(value)

# METADATA
# description: Whether some role of the caller may reach every tenant.
across if {
	some role in input.principal.roles
	role in data.callgate.only.tenants.across
}
