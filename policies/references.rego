package callgate.call

# METADATA
# description: >-
#   Each argument that refers to a list of values and is not known to be one of them, with that list.
#   A list that is a mapping is looked into without reading all of it.
unknown[parameter] := values if {
	some parameter, path in input.tool.references
	values := values_at(path)
	argument := input.call.arguments[parameter]
	not exists(values, argument)
}

# A list that is not there must not mean that everything exists.
deny contains reason if {
	some parameter, values in unknown
	values == null
	reason := sprintf("the values that %s may have are not known to the policies", [parameter])
}

reask contains reason if {
	some parameter, values in unknown
	some value in named(input.call.arguments[parameter])
	not exists(values, value)
	reason := sprintf("%s '%s' does not exist%s", [parameter, shown(value), hint(parameter, values, value)])
}

# METADATA
# description: What a path such as "reference.services" names (data.reference.services); null for nothing.
values_at(path) := values if {
	startswith(path, "reference.")
	lists := data.reference
	values := object.get(lists, split(substring(path, 10, -1), "."), null)
} else := null

named(value) := value if is_array(value)

named(value) := [value] if not is_array(value)

exists(values, value) if {
	is_object(values)
	_ = values[value]
} else if {
	is_array(values)
	value in values
}

# A guess costs a look at every value: only for one text, and only out of a short list.
default hint(_, _, _) := ""

hint(parameter, values, value) := sprintf(": did you mean '%s'?", [concat("' or '", near)]) if {
	input.tool.references[parameter] in data.callgate.suggest_from
	value == input.call.arguments[parameter]
	is_string(value)
	count(values) <= 200
	near := array.slice(nearest(plain_forms(values), plain(value)), 0, 3)
	count(near) > 0
}

# The same but for case and separators; else one within the other; else the same first three letters.
nearest(forms, wanted) := sort(same) if {
	same := {value | some value, form in forms; form == wanted}
	count(same) > 0
} else := sort(within) if {
	within := {value | some value, form in forms; overlap(form, wanted)}
	count(within) > 0
} else := sort(alike) if {
	alike := {value | some value, form in forms; startswith(form, substring(wanted, 0, 3))}
}

plain_forms(values) := {value: plain(value) | some value in values; is_string(value)} if is_array(values)

plain_forms(values) := {value: plain(value) | some value, _ in values} if is_object(values)

plain(value) := replace(replace(replace(lower(value), "-", ""), "_", ""), " ", "")

overlap(a, b) if {
	count(b) > 2
	contains(a, b)
}

overlap(a, b) if {
	count(a) > 2
	contains(b, a)
}
