"""What Rego says, without evaluating it: faults, costs, what is read; its tests and coverage."""
