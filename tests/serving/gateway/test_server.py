"""What the gateway needs to start."""

import subprocess
import sys


def test_no_model_library_is_loaded() -> None:
    code = (
        "import sys, fakenews.serving.gateway.server as s; "
        "print({'torch', 'lightning', 'mlflow', 'transformers', 'spacy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
