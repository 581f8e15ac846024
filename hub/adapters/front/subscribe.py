"""How SUBSCRIBE and UNSUBSCRIBE are answered: truthfully, though delivery never depends on it.

Every client hears its own topics from the moment it is connected; nothing is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.mqtt import Reason, Suback, Subscribe, Unsuback, Unsubscribe, Version

if TYPE_CHECKING:
    from hub.adapters.front.dialect import Translator


def grant(packet: Subscribe, translator: Translator, version: Version, max_filters: int) -> Suback:
    """Return the answer: granted where the filter selects nothing but the client's own topics."""
    reasons = []
    for index, each in enumerate(packet.subscriptions):
        granted = index < max_filters and translator.grants(each.topic_filter)
        refusal = Reason.NOT_AUTHORIZED if index < max_filters else Reason.QUOTA_EXCEEDED
        if version is Version.V311:
            refusal = Reason.UNSPECIFIED_ERROR
        reasons.append(min(each.qos, 1) if granted else refusal)
    return Suback(packet.packet_id, tuple(reasons))


def give_back(packet: Unsubscribe, translator: Translator, version: Version) -> Unsuback:
    """Return the answer to filters given back."""
    if version is Version.V311:
        return Unsuback(packet.packet_id)
    reasons = (
        Reason.SUCCESS if translator.grants(each) else Reason.NO_SUBSCRIPTION_EXISTED
        for each in packet.topic_filters
    )
    return Unsuback(packet.packet_id, tuple(reasons))
