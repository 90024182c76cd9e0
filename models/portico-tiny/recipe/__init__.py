"""The recipe of portico-tiny: its network, its trainer and its data."""
