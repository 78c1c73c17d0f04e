# Which tool calls may reach the application. Nothing may, unless a rule below says so.
package callgate.call

default decision := {"effect": "deny", "reasons": ["no policy allows this call"]}

decision := {"effect": "allow", "reasons": ["any principal may read"]} if {
	input.tool.registered
	input.tool.effect == "read"
}

decision := {"effect": "allow", "reasons": ["the support role may write"]} if {
	input.tool.registered
	input.tool.effect == "write"
	"support" in input.principal.roles
}
