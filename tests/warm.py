"""What the children of tests/dying.py would each calculate first: their fork server imports this, and they have it.

The accountant keeps what it found (fedft/privacy/accountant.py); a process that was forked keeps it too.
"""

from __future__ import annotations

from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.events import DpSgdRound
from tests.federation import BATCH, PRIVATE, UNITS

EPSILON, DELTA, RATE, LOCAL_STEPS = PRIVATE["epsilon"], PRIVATE["delta"], BATCH / UNITS, 2

for rounds in (1, 2, 8, 14):
    noise = calibrate(epsilon=EPSILON, delta=DELTA, sampling_rate=RATE, steps=rounds * LOCAL_STEPS)
    for done in range(1, rounds + 1):
        epsilon_of([DpSgdRound(noise, RATE, LOCAL_STEPS)] * done, DELTA)
