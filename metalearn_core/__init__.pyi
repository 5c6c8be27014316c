# What metalearn_core exports, for type checkers; at run time each name loads when first used.

from metalearn_core.errors import UsageError as UsageError
from metalearn_core.errors import unknown as unknown
from metalearn_core.evaluation import evaluate as evaluate
from metalearn_core.evaluation import meta_test as meta_test
from metalearn_core.inner_loop import adapt as adapt
from metalearn_core.inner_loop import trajectory as trajectory
from metalearn_core.kernels.coordinatewise import Coordinatewise as Coordinatewise
from metalearn_core.kernels.coordinatewise import coordinatewise_cell as coordinatewise_cell
from metalearn_core.kernels.programs import CompiledMetaGradient as CompiledMetaGradient
from metalearn_core.learner import BaseLearner as BaseLearner
from metalearn_core.optimizers.learned import LearnedOptimizer as LearnedOptimizer
from metalearn_core.optimizers.torch_twins import TWINS as TWINS
from metalearn_core.optimizers.torch_twins import TwinOptimizer as TwinOptimizer
from metalearn_core.outer_loop import meta_train as meta_train
from metalearn_core.outer_loop import meta_train_seeds as meta_train_seeds
from metalearn_core.registration.entries import PluginReport as PluginReport
from metalearn_core.registration.entries import Registered as Registered
from metalearn_core.registration.hooks import hookimpl as hookimpl
from metalearn_core.registry import Registry as Registry
from metalearn_core.registry import base_learners as base_learners
from metalearn_core.registry import default_registry as default_registry
from metalearn_core.registry import make_rule as make_rule
from metalearn_core.registry import observers as observers
from metalearn_core.registry import placements as placements
from metalearn_core.registry import rules as rules
from metalearn_core.registry import task_families as task_families
from metalearn_core.rule import State as State
from metalearn_core.rule import UpdateRule as UpdateRule
from metalearn_core.rule import log_and_sign as log_and_sign
from metalearn_core.settings import Clipping as Clipping
from metalearn_core.settings import Order as Order
from metalearn_core.settings import Settings as Settings
from metalearn_core.signal import Signal as Signal
from metalearn_core.signal import SupportSet as SupportSet
from metalearn_core.task import Batch as Batch
from metalearn_core.task import Task as Task
from metalearn_core.task import TaskFamily as TaskFamily
from metalearn_core.training.events import Event as Event
from metalearn_core.training.events import Observer as Observer
from metalearn_core.training.files import write_atomically as write_atomically
from metalearn_core.training.meta_gradient import meta_gradient as meta_gradient
from metalearn_core.training.parameters import ParameterLayout as ParameterLayout
from metalearn_core.training.parameters import forked_rng as forked_rng
from metalearn_core.training.parameters import keep_parameters as keep_parameters
from metalearn_core.training.processes import FailedElsewhereError as FailedElsewhereError
from metalearn_core.training.processes import LostProcessError as LostProcessError
from metalearn_core.training.processes import Processes as Processes
from metalearn_core.training.snapshot import Snapshot as Snapshot
from metalearn_core.training.task_stream import TaskStream as TaskStream
from metalearn_core.training.task_stream import seeded_generator as seeded_generator
from metalearn_core.training.trained import Trained as Trained

__version__: str
__all__: list[str]
