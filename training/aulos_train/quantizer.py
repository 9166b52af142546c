# SPDX-License-Identifier: MIT
"""Residual vector quantization by moving averages, kept in EnCodec's own buffers (embed, embed_avg, cluster_size)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F

from aulos_train.trainer import sum_over_processes


class Quantizer:
    def __init__(self, model, decay=0.99, dead=0.0):
        """A code whose average use falls below `dead` vectors a step starts again from a vector of the batch."""
        self.codebooks = [layer.codebook for layer in model.quantizer.layers]
        self.decay, self.dead = decay, dead

    @torch.no_grad()
    def start(self, vectors, rounds=12):
        """k-means on vectors [N, D]; needs some tens of vectors a code."""
        rest = vectors.clone()
        for book in self.codebooks:
            size = book.embed.shape[0]
            centres = rest[torch.randperm(len(rest), device=rest.device)[:size]].clone()
            for i in range(rounds + 1):
                nearest = torch.cdist(rest, centres).argmin(1)
                count = torch.bincount(nearest, minlength=size).float()
                if i < rounds:
                    sums = torch.zeros_like(centres).index_add_(0, nearest, rest)
                    spare = rest[torch.randint(len(rest), (size,), device=rest.device)]
                    centres = torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], spare)
            if dist.is_initialized():  # every process had vectors of its own
                for shared in (centres, count):
                    dist.broadcast(shared, 0)
                nearest = torch.cdist(rest, centres).argmin(1)
            book.embed.copy_(centres)
            book.cluster_size.copy_(count / count.sum() * 800 + 0.2)
            book.embed_avg.copy_(centres * book.cluster_size[:, None])
            rest = rest - centres[nearest]

    def update(self, book, vectors, nearest):
        """One step of the moving averages; -> how many codes started again."""
        size = book.embed.shape[0]
        count = torch.bincount(nearest, minlength=size).float()
        sums = torch.zeros_like(book.embed).index_add_(0, nearest, vectors)
        both = sum_over_processes(torch.cat([sums, count[:, None]], 1))
        book.cluster_size.mul_(self.decay).add_(both[:, -1], alpha=1 - self.decay)
        book.embed_avg.mul_(self.decay).add_(both[:, :-1], alpha=1 - self.decay)
        unused = book.cluster_size < self.dead
        restarts = int(unused.sum())
        if restarts:
            fresh = vectors[torch.randint(len(vectors), (restarts,), device=vectors.device)].contiguous()
            if dist.is_initialized():
                dist.broadcast(fresh, 0)
            book.embed_avg[unused] = fresh
            book.cluster_size[unused] = 1.0
        book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-5)[:, None])
        return restarts

    def __call__(self, z, learn=False):
        """z [B, D, T] f32 -> quantized (gradients pass straight through), commitment loss, codes [B, K, T], restarts."""
        batch, width, length = z.shape
        x = z.transpose(1, 2).reshape(-1, width)
        rest, total, commitment, codes, restarts = x, 0, 0, [], 0
        for book in self.codebooks:
            with torch.no_grad():
                vectors = rest.detach()
                nearest = (vectors @ book.embed.t() * 2 - book.embed.pow(2).sum(1)).argmax(1)
                chosen = book.embed[nearest].clone()
                if learn:
                    restarts += self.update(book, vectors, nearest)
            commitment = commitment + F.mse_loss(rest, chosen)
            total = total + chosen
            rest = rest - chosen
            codes.append(nearest.view(batch, length))
        total = x + (total - x).detach()
        return total.view(batch, length, width).transpose(1, 2), commitment, torch.stack(codes, 1), restarts
