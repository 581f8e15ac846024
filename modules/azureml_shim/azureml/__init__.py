"""The few `azureml` names that entry scripts import, for images without azureml-core.

Standard library only. An installed azureml-core is found first; the rest is added to it.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
