"""One case in a process of its own: `python -m benchmarks.cases NAME JSON` prints its result as one line of JSON."""

import json
import sys

from benchmarks.cases import CASES
from benchmarks.machine import peak_memory
from ldm.errors import UserError


def main(name: str, params: str) -> None:
    given = json.loads(params)
    try:
        result = CASES[name](**given)
        result.setdefault("memory", peak_memory(given["device"]))
    except UserError as error:  # a precision that this machine does not have
        result = {"missing": str(error)}
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        result = {"missing": "diffusers is not installed (pip install -e .[bench])"}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
