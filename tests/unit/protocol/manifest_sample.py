"""A manifest as IoT Edge users write them, and one way to change a place in it."""

from __future__ import annotations

import copy
import json
from typing import Any

AGENT = "modulesContent.$edgeAgent.properties.desired"
HUB = "modulesContent.$edgeHub.properties.desired"
DETECTOR = f"{AGENT}.modules.detector"

SAMPLE: dict[str, Any] = {
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {
                    "type": "docker",
                    "settings": {
                        "minDockerVersion": "v1.25",
                        "loggingOptions": "",
                        "registryCredentials": {
                            "siteRegistry": {
                                "username": "u",
                                "password": "p",
                                "address": "registry.example",
                            }
                        },
                    },
                },
                "systemModules": {
                    "edgeAgent": {
                        "type": "docker",
                        "imagePullPolicy": "on-create",
                        "settings": {"image": "registry.example/agent:1.5", "createOptions": "{}"},
                    },
                    "edgeHub": {
                        "type": "docker",
                        "status": "running",
                        "restartPolicy": "always",
                        "startupOrder": 0,
                        "settings": {"image": "registry.example/hub:1.5", "createOptions": "{}"},
                    },
                },
                "modules": {
                    "detector": {
                        "version": "1.0",
                        "type": "docker",
                        "status": "running",
                        "restartPolicy": "always",
                        "startupOrder": 2,
                        "imagePullPolicy": "on-create",
                        "env": {"THRESHOLD": {"value": 0.6}},
                        "settings": {
                            "image": "registry.example/vision/detector:7",
                            "createOptions": '{"HostConfig":{"Memory":536870912}}',
                        },
                    }
                },
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "routes": {
                    "up": "FROM /messages/modules/detector/outputs/* INTO $upstream",
                    "act": {
                        "route": "FROM /messages/modules/detector/outputs/alarm INTO "
                        'BrokeredEndpoint("/modules/actuator/inputs/in")',
                        "priority": 0,
                        "timeToLiveSecs": 86400,
                    },
                },
                "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
            }
        },
        "detector": {"properties.desired": {"fps": 5}},
    }
}


class Gone:
    """Put at a place, it takes the place away."""


def steps(path: str) -> list[str]:
    """Split a path as the errors write it; `properties.desired` is one key."""
    parts = path.replace("properties.desired", "properties-desired").split(".")
    return [part.replace("properties-desired", "properties.desired") for part in parts]


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the sample with `value` at `path`; `Gone` removes what is there."""
    document = copy.deepcopy(SAMPLE)
    place: Any = document
    *way, last = steps(path)
    for step in way:
        place = place.setdefault(step, {})
    if value is Gone:
        del place[last]
    else:
        place[last] = value
    return document


def written(document: dict[str, Any]) -> bytes:
    """Return the document as bytes."""
    return json.dumps(document).encode()
