"""What hangs on the engines: checkpoints, the CSV of all figures, pictures, learning rates."""

from ct_cncl.pipeline.handlers.branch_health import BranchHealth
from ct_cncl.pipeline.handlers.budget import BudgetSchedule
from ct_cncl.pipeline.handlers.checkpoints import Checkpoints
from ct_cncl.pipeline.handlers.curves import LearningRateLogger, MetricsCSV, loss_terms
from ct_cncl.pipeline.handlers.ema import EMA
from ct_cncl.pipeline.handlers.evaluation import EvaluationTable, WrittenFiles
from ct_cncl.pipeline.handlers.forward_seconds import ForwardSeconds
from ct_cncl.pipeline.handlers.kept_slices import KeptSlices
from ct_cncl.pipeline.handlers.pictures import PicturePanel
from ct_cncl.pipeline.handlers.progress import TrainingProgress
from ct_cncl.pipeline.handlers.stats import StatsLog

__all__ = [
    "EMA",
    "BranchHealth",
    "BudgetSchedule",
    "Checkpoints",
    "EvaluationTable",
    "ForwardSeconds",
    "KeptSlices",
    "LearningRateLogger",
    "MetricsCSV",
    "PicturePanel",
    "StatsLog",
    "TrainingProgress",
    "WrittenFiles",
    "loss_terms",
]
