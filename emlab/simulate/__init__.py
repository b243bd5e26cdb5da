"""Made-up people with homes, habits and phones, for experiments that need data of nobody.

    for person in Simulator(n_users=20, days=3, seed=1):
        person.name, person.entries(), person.trips

A person's day is a list of tours between three places (`life`), each trip follows streets (`routes`), the phone
measures it with noise (`phone`) and writes e-mission entries (`entry_form`). The same seed gives the same people,
whatever their number, in every process. Decisions only: no I/O, no clock; numpy and pandas load when they are needed.
"""

from emlab.simulate.entry_form import Entry
from emlab.simulate.life import Setting
from emlab.simulate.person import Person
from emlab.simulate.population import Simulator
from emlab.simulate.truth import Mode, Place, TrueTrip

__all__ = ["Entry", "Mode", "Person", "Place", "Setting", "Simulator", "TrueTrip"]
