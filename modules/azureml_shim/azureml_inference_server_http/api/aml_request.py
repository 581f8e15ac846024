"""The same objects as in `azureml.contrib.services.aml_request`."""

from azureml.contrib.services.aml_request import (  # type: ignore[import-not-found]  # beside it
    AMLRequest,
    rawhttp,
)

__all__ = ["AMLRequest", "rawhttp"]
