"""What compute-sanitizer watches: one small model through every stream, in little time."""

from __future__ import annotations

import argparse

import torch

from benchmarks.device import find_device
from benchmarks.gpu.models import llama_config, random_ids, random_model
from mom_core import Engine, EngineConfig


def main() -> None:
    """Reads and answers with everything on the host: streamed in fp32, used there in bf16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true")
    device = find_device(dry_run=parser.parse_args().dry_run)
    config = llama_config(is_tiny=True, layers=2)
    ids = random_ids(config, 100)
    ways = [
        EngineConfig(chunk_tokens=32, kv="host", hidden="host", decode="stream", weights="stream"),
        EngineConfig(chunk_tokens=32, kv="host", hidden="host", decode="host"),
    ]
    for dtype, settings in zip((torch.float32, torch.bfloat16), ways, strict=True):
        engine = Engine(random_model(config, device.torch_device, dtype), config=settings)
        engine.logits(ids[:50])
        print(dtype, engine.generate_ids(ids, max_new_tokens=3))
        engine.close()
    device.synchronize()


if __name__ == "__main__":
    main()
