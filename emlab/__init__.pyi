"""What `import emlab` offers; each name is loaded from its module when it is first used."""

from . import files as files
from . import plots as plots
from . import report as report
from .aggregate import Release as Release
from .aggregator import Aggregator as Aggregator
from .controller import Controller as Controller
from .engines.base import Engine as Engine
from .entries import StoreReport as StoreReport
from .errors import BadEntry as BadEntry
from .errors import BadQuery as BadQuery
from .errors import BudgetExhausted as BudgetExhausted
from .errors import ConfigError as ConfigError
from .errors import DiskFull as DiskFull
from .errors import EmlabError as EmlabError
from .errors import EngineError as EngineError
from .errors import EngineMissing as EngineMissing
from .errors import LabInUse as LabInUse
from .errors import NotPermitted as NotPermitted
from .errors import PolicyRefused as PolicyRefused
from .errors import Refused as Refused
from .errors import TooFewUsers as TooFewUsers
from .errors import UnknownUser as UnknownUser
from .errors import Unreachable as Unreachable
from .errors import VaultError as VaultError
from .errors import WrongKey as WrongKey
from .experiment import Experiment as Experiment
from .idle import Never as Never
from .idle import PauseAfter as PauseAfter
from .key import Key as Key
from .lab import Lab as Lab
from .lease import Lease as Lease
from .policy import Policy as Policy
from .provider import Provider as Provider
from .query import CountUsers as CountUsers
from .query import Region as Region
from .query import SumDistance as SumDistance
from .record import Recorder as Recorder
from .simulate import Person as Person
from .simulate import Simulator as Simulator
from .state import CloudState as CloudState
from .usercloud import UserCloud as UserCloud
from .vaults.base import Vault as Vault

__version__: str
