"""How far what was counted is from the reference, and in which words."""
