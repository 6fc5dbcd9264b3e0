"""The monitor beside other servers: what they are asked and answer, held against a profile."""
