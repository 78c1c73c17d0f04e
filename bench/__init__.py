"""What Callgate costs: measured against a bare pass-through on the same machine, in the same run."""
