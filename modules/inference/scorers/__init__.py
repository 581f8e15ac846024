"""What turns a request into a result: a user's script, or a model served without one."""
