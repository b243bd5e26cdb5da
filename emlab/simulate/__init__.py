"""Made-up people with homes, habits and phones, for experiments that need data of nobody.

    for person in Simulator(n_users=20, days=3, seed=1):
        person.name, person.entries(), person.trips

A city has streets, buses and trains (`city`, `streets`, `transit`); households live in it (`households`), whose members
do things (`activities`), choose how to get there (`choices`, `routes`) and move (`movement`, `diary`). Their phones
measure positions with noise (`phone`), sense motions (`sensing`), write e-mission entries (`entry_form`) and send them
now and then (`uploads`). The same seed gives the same people, whatever their number, bit for bit on every machine
(`arithmetic`, `seeds`). Decisions only: no I/O, no clock; numpy and pandas load when they are needed.
"""

from emlab.entries.codes import Mode
from emlab.simulate.city import CITIES, City
from emlab.simulate.entry_form import Entry
from emlab.simulate.households import Kind
from emlab.simulate.person import Person
from emlab.simulate.phone import Track
from emlab.simulate.population import Simulator
from emlab.simulate.setting import District, Setting
from emlab.simulate.truth import Place, TrueSection, TrueTrip
from emlab.simulate.uploads import Upload

__all__ = [
    "CITIES",
    "City",
    "District",
    "Entry",
    "Kind",
    "Mode",
    "Person",
    "Place",
    "Setting",
    "Simulator",
    "Track",
    "TrueSection",
    "TrueTrip",
    "Upload",
]
