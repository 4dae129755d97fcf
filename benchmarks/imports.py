"""What importing libraries takes with Python's garbage collector and without, in CPU seconds.

    python benchmarks/imports.py [--rounds 5]

Each import is a process of its own, both ways in turns; the quickest round counts. A ratio below 1
is what `e2eft.imports.uncollected` leaves of the time.
"""

import argparse
import subprocess
import sys

IMPORTS = {
    "torch, diffusers, transformers": "import torch; from diffusers import AutoencoderKL, "
    "UNet2DConditionModel; from transformers import CLIPTextModel",
    "torch, deepspeed": "import torch, deepspeed",
    "mlflow": "from mlflow import MlflowClient",
}


def cpu_s(statements: str, collected: bool) -> float:
    script = f"import gc, time; {'' if collected else 'gc.disable(); '}{statements}; "
    script += "print(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| | collected, CPU-s | uncollected, CPU-s | ratio |\n|---|---|---|---|")
    for name, statements in IMPORTS.items():
        taken = {True: [], False: []}
        for _ in range(rounds):
            for collected, made in taken.items():
                made.append(cpu_s(statements, collected))
        slow, fast = min(taken[True]), min(taken[False])
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} |", flush=True)


if __name__ == "__main__":
    main()
