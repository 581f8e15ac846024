"""The wire between hub and devices. Imports no one; standard library and msgspec only."""
