"""The device daemon: observe, plan, act, report."""
