"""A dashboard with an extension, mounted in a Starlette application. Run it: `uvicorn app:app`, then open /jobs/."""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount

from pillion.web import ANYONE_I_KNOW, dashboard

sys.path.insert(0, str(Path(__file__).parent))

from on_call import Duty, extension

jobs = dashboard(auth=ANYONE_I_KNOW)
jobs.register(extension(Duty()))
app = Starlette(routes=[Mount("/jobs", jobs)])
