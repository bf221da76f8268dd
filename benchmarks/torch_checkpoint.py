"""torch.save and torch.load of tensors of given shapes; for `benchmarks/checkpoint.py --peer-python`.

    python torch_checkpoint.py FILE < shapes.json

Reads {name: shape} of float32 tensors, prints one JSON line: the seconds of both, and the processor
seconds of loading. Needs torch; nothing of mmjax.
"""

import json
import sys
import time


def main() -> None:
    import torch  # of the peer's environment, not of mmjax's

    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) for name, shape in json.load(sys.stdin).items()}
    start = time.perf_counter()
    torch.save(tensors, sys.argv[1])
    saved = time.perf_counter() - start
    del tensors
    start, cpu = time.perf_counter(), time.process_time()
    found = torch.load(sys.argv[1])
    loaded, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert all(torch.isfinite(tensor.flatten()[:1]).all() for tensor in found.values())
    print(json.dumps({"save": saved, "load": loaded, "load_cpu": cpu}))


if __name__ == "__main__":
    main()
