"""How a monitor's results reach people and programs."""
