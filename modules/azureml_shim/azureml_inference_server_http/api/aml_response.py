"""The same object as in `azureml.contrib.services.aml_response`."""

from azureml.contrib.services.aml_response import (  # type: ignore[import-not-found]  # beside it
    AMLResponse,
)

__all__ = ["AMLResponse"]
