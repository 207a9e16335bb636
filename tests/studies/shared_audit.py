"""An audit as `accelerate launch` starts it in several processes, one of which may be killed at its second batch.

    accelerate launch --multi_gpu --num_processes 2 -m tests.studies.shared_audit KILLED audit ...

KILLED is the number of the process that is killed, after it has written a batch's tables and before the marker that
makes them exist; -1 kills none. Figures are left out: they take most of the time.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from probes.files import write_json
from studies.cli import command


def dying_write(path: Path, content: Any) -> None:
    if path.parent.name == "batches" and any(path.parent.parent.glob(f"batches/*{os.environ['RANK']}.json")):
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, content)


if __name__ == "__main__":
    patch("studies.auditing.figures.draw_figures", lambda *_: []).start()
    if os.environ.get("RANK") == sys.argv[1]:
        patch("studies.run_folder.parts.write_json", dying_write).start()
    sys.exit(command(sys.argv[2:]))
