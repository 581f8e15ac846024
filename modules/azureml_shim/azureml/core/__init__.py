"""The part of `azureml.core` that runs inside a service."""

from .model import Model

__all__ = ["Model"]
