"""Load: requests at a server, how long its answers take, and the settings that carry most of them."""
