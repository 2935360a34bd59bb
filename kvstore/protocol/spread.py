"""How a newer cluster state gets to all members: who hears of one asks for it."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from kvstore.protocol.fields import Epoch, StateField
from kvstore.protocol.row import peer_message


@peer_message("at_epochs")
class AtEpoch(msgspec.Struct, frozen=True, gc=False):
    """The sender has the state of this epoch on its disk, and acts by it."""

    epoch: Epoch


@peer_message("states_wanted")
class StateWanted(msgspec.Struct, frozen=True, gc=False):
    """The sender is at this epoch, and wants a newer state, or to know that there is none."""

    epoch: Epoch


@peer_message("new_states", waits=lambda _: True)
class NewState(msgspec.Struct, frozen=True):
    """The state that the sender acts by."""

    state: StateField


SpreadMessage: TypeAlias = AtEpoch | StateWanted | NewState
