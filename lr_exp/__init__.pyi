# The public names and where they are defined; read by `lazy_loader` at run time.
from . import contrast as contrast
from . import progress as progress
from .api import compose as compose
from .api import read_questions as read_questions
from .api import run_experiment as run_experiment
from .config.settings import Settings as Settings
from .errors import UserError as UserError
from .pipeline.interactive import Answer as Answer
from .pipeline.interactive import Pair as Pair
from .pipeline.interactive import Sample as Sample
from .pipeline.interactive import load_pair as load_pair
from .pipeline.interactive import sample as sample
from .report.analyse import paired as paired
from .report.figures import style as style
from .report.read.data_frames import read_answers as read_answers
from .report.read.data_frames import read_runs as read_runs

__version__: str
