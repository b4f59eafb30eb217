"""Run once per task: sums over all ranks through gloo and writes what this rank saw to the folder that is named."""

import json
import os
import pathlib
import socket
import sys

import torch
import torch.distributed as dist


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    total = torch.tensor([10.0**rank])
    dist.all_reduce(total)
    seen = {
        "rank": rank,
        "world": dist.get_world_size(),
        "local_rank": int(os.environ["LOCAL_RANK"]),
        "node": socket.gethostname(),
        "sum": total.item(),
        "master": os.environ["MASTER_ADDR"],
        "port": int(os.environ["MASTER_PORT"]),
    }
    (pathlib.Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
