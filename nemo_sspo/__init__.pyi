from nemo_sspo.api import OpenRun as OpenRun
from nemo_sspo.api import UserError as UserError
from nemo_sspo.api import load_experiment as load_experiment
from nemo_sspo.api import open_run as open_run
from nemo_sspo.api import plan as plan
from nemo_sspo.api import run as run

__version__: str
