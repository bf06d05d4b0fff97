"""List the operations that a model spends its time in.

    python tools/dev/profile_model.py boat-swin-tiny [--training]

Needs the package installed, or `PYTHONPATH=.`. A model takes a name as
tools/benchmark.py does.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from mmattn.analysis.benchmark import Run, Settings
from mmattn.analysis.targets import read_target


def main() -> None:
    """Print the profiler's table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('model')
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--dtype', default='float32')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default=default)
    parser.add_argument('--training', action='store_true')
    parser.add_argument('--rows', type=int, default=20)
    args = parser.parse_args()
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    target = read_target(args.model)
    model = target.build((args.size, args.size)).to(device, dtype)
    images = torch.rand(args.batch, 3, args.size, args.size).to(device, dtype)
    settings = Settings(args.batch, device, dtype)
    run = Run(target, 'eager', model, images, settings)
    model.train(args.training)
    step = run.train if args.training else run.infer
    step()
    activities = [ProfilerActivity.CPU]
    if args.device == 'cuda':
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        step()
    table = profiler.key_averages().table(
        sort_by=f'self_{args.device}_time_total', row_limit=args.rows
    )
    print(table)


if __name__ == '__main__':
    main()
