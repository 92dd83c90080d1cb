"""The public functions: composition of the rooms, one module a verb."""
