"""Training steps of open_clip's ViT-B-32 as its training takes them, float32; for `benchmarks/train_step.py`.

    python open_clip_step.py BATCH THREADS

For each line on standard input that holds a number of steps, takes them and prints the seconds a step. Needs
open_clip_torch; nothing of mmjax.
"""

import sys
import time


def main() -> None:
    import open_clip  # of the peer's environment, not of mmjax's
    import torch

    batch, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32")
    model.train()
    loss_fn = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    images, texts = torch.randn(batch, 3, 224, 224), torch.randint(1, 49406, (batch, 77))
    texts[:, -1] = 49407
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            optimizer.zero_grad()
            image_features, text_features, logit_scale = model(images, texts)
            loss_fn(image_features, text_features, logit_scale).backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, 4.6052)
        print((time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main()
