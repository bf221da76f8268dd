"""One epoch of open_clip's WebDataset loader as its training uses it; for `benchmarks/input.py --peer-python`.

    python open_clip_input.py SHARDS IMAGES BATCH WORKERS

Prints one JSON line: images a second once every worker has given a batch, processor seconds an image, workers
included, and the version of webdataset. Needs open_clip_torch, webdataset, torch, torchvision and pandas; nothing of
mmjax.
"""

import argparse
import json
import resource
import sys
import time


def cpu_seconds() -> float:
    """Returns processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    import importlib.metadata

    import open_clip  # of the peer's environment, not of mmjax's
    from open_clip_train.data import get_wds_dataset

    shards, images, batch, workers = sys.argv[1], *map(int, sys.argv[2:])
    settings = argparse.Namespace(
        train_data=shards,
        train_num_samples=images,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=batch,
        workers=workers,
        world_size=1,
    )
    preprocess = open_clip.image_transform(224, is_train=True)
    cpu = cpu_seconds()
    loader = get_wds_dataset(settings, preprocess, True, tokenizer=open_clip.get_tokenizer("ViT-B-32")).dataloader
    batches = iter(loader)
    for _ in range(workers):
        next(batches)
    start, count = time.perf_counter(), 0
    for pixels, tokens in batches:
        assert pixels.shape[1:] == (3, 224, 224) and tokens.shape[1:] == (77,)
        count += len(pixels)
    elapsed = time.perf_counter() - start
    del batches, loader  # ends the workers, whose time is only then counted
    found = {"rate": count / elapsed, "cpu": (cpu_seconds() - cpu) / (count + workers * batch)}
    print(json.dumps(found | {"webdataset": importlib.metadata.version("webdataset")}))


if __name__ == "__main__":
    main()
