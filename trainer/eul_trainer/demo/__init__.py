"""The demonstration: two deletion requests about things the base model knows, from data to served tenants.

It runs the command lines that a user would type; `python -m eul_trainer.demo` is the program.
"""
