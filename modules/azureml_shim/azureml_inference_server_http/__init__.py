"""The names under which newer entry scripts import `rawhttp`, `AMLRequest` and `AMLResponse`."""

__version__ = "1.5.1"
