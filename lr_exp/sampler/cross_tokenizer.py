"""Scores the expert's answers with an amateur that has another tokenizer: `amateur.tokenizer=own`.

The amateur reads its own prompt and the answer's text in its own tokens u_1 u_2 ... At a position
of the expert, let u_1 .. u_k be those that end within the text so far, and r the text after them:
the written part of u_{k+1}, empty where both tokenizers split. A *path* v is a sequence of amateur
tokens after u_1 .. u_k, with p(v) = prod_i pi_A(v_i | u_1 .. u_k v_1 .. v_{i-1}). It counts for one
expert token f(v), the first of its text after r: a token of this text, else the first of the
expert's encoding or, behind an earlier token's text, the longest token that the text starts with.
Ends of turn count for the expert's most probable one, other special tokens for none (*rest*).

    Q(e) = sum of p(v) over the paths with f(v) = e, divided by this sum over all paths.

The paths are the leaves of a tree, so nothing is lost or counted twice. Paths that contradict r are
left out, which conditions Q on r. The tree branches along the amateur's encoding of r and of r with
each token of the support, and behind the latter if a longer expert token begins so. The answer's
own branch is read in one pass, each other one as a sequence of its own.

Q is an approximation: outside the support, text of a longer expert token may count for a shorter
one, and of the ways to write r only the tokenizer's own are followed. The divergence is taken over
{tokens of the support, rest}, so it is a lower bound of KL(pi_E || Q). If the vocabularies have the
same tokens in another order, ids are mapped instead and the divergence is that of all tokens.
"""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lr_exp import contrast
from lr_exp.errors import UserError
from lr_exp.models.loading import LanguageModel
from lr_exp.models.packing import groups_within, pack, read_logits
from lr_exp.models.prompts import continuation_ids
from lr_exp.models.vocabulary import SharedVocabulary

VERSION = 1
_MAX_LOST_SHARE = 0.5  # of the expert's tokens
_CACHED_TABLES, _CACHED_PATHS = 1024, 2**16  # a table has an entry for each amateur token

Path = tuple[int, ...]
Answer = tuple[list[int], list[int], list[int]]  # prompt, `amateur_ids`, the expert's token ids


class Position(NamedTuple):
    """A token position of an answer, as the amateur reads it."""

    row: int  # of the logits after u_1 .. u_k; the next rows follow u_{k+1} ...
    prefix: list[int]  # the prompt and u_1 .. u_k
    following: Path  # u_{k+1} ...
    pending: bytes  # r


class Reader(NamedTuple):
    """An amateur and its logits `(reads, rows)` after each prompt and each read token."""

    model: torch.nn.Module
    logits: Tensor
    tokens_per_pass: int

    @torch.inference_mode()
    def read(self, chains: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """The logits, then those at the given indices of further sequences."""
        parts = [self.logits]
        for group in groups_within([len(ids) for ids, _ in chains], self.tokens_per_pass):
            packed = pack(*zip(*(chains[i] for i in group), strict=True))
            parts.append(read_logits(self.model, packed.to(self.logits.device)))
        return torch.cat(parts)


class _Texts:
    """A model's tokens by the bytes that they write."""

    def __init__(self, role: str, model: LanguageModel) -> None:
        self.tokenizer, self.stop_ids = model.tokenizer, model.stop_ids
        if not self.tokenizer.is_fast:
            raise UserError(f"amateur.tokenizer=own needs a tokenizer.json; the {role} has none.")
        vocabulary, added = self.tokenizer.get_vocab(), self.tokenizer.added_tokens_decoder
        self.names = {i: name for name, i in vocabulary.items() if i < model.vocabulary_size}
        self.of: dict[int, bytes] = {}  # without special tokens
        decoder = repr(self.tokenizer.backend_tokenizer.decoder)
        to_byte = {character: byte for byte, character in bytes_to_unicode().items()}
        for i, name in self.names.items():
            text = name.encode()
            if i in added:
                text = b"" if added[i].special else text
            elif "ByteLevel" in decoder and to_byte.keys() >= {*name}:
                text = bytes(to_byte[character] for character in name)
            elif "ByteFallback" in decoder and re.fullmatch("<0x[0-9A-F]{2}>", name):
                text = bytes.fromhex(name[3:5])
                text = b"" if text.isascii() and text.decode() in vocabulary else text  # unused
            elif "▁" in decoder:  # SentencePiece's space
                text = name.replace("▁", " ").encode()
            if text and i not in model.stop_ids:
                self.of[i] = text
        self.by_bytes = {text: i for i, text in self.of.items()}
        self.ordered = sorted(self.by_bytes)

    def starting_with(self, start: bytes) -> list[bytes]:
        low, size = bisect_left(self.ordered, start), len(start)
        high = bisect_right(self.ordered, start, lo=low, key=lambda text: text[:size])
        return self.ordered[low:high]

    def longest(self, text: bytes, default: int = -1) -> int:
        """The id of the longest token with which a text starts."""
        starts = (text[:size] for size in range(len(text), 0, -1))
        return next((self.by_bytes[start] for start in starts if start in self.by_bytes), default)

    def encode(self, texts: Sequence[bytes]) -> list[Path | None]:
        """The tokens of texts that continue another one; None for one that they cannot write."""
        decoded = (text.decode("utf-8", "surrogateescape") for text in texts)
        heads = [re.split("[\udc80-\udcff]", head, maxsplit=1)[0] for head in ("", *decoded)]
        behind = ["\n" + head for head in heads]
        before, *rows = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        found = []
        for text, head, row in zip(texts, heads[1:], rows, strict=True):
            joins = row[: len(before)] != before or self.tokenizer.unk_token_id in before
            ids = continuation_ids(self.tokenizer, head) if joins else row[len(before) :]
            tail = text[len(head.encode()) :]  # from an incomplete character on: longest tokens
            while (index := self.longest(tail)) >= 0:
                ids, tail = [*ids, index], tail[len(self.of[index]) :]
            found.append(tuple(ids) if self.text(ids) == text else None)
        return found

    def ends(self, ids: Iterable[int]) -> list[int]:
        return [*accumulate((len(self.of.get(i, b"")) for i in ids), initial=0)]

    def text(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.of.get(i, b"\xff\xff") for i in ids)  # which no text contains


class CrossTokenizer:
    """Reads the expert's answers in the amateur's tokens and pushes its mass onto the expert's.

    `shared` has the expert's ids that are compared: those that the amateur can write, and the ends
    of turn. The models need no weights. Raises UserError: the amateur cannot write most tokens.
    """

    def __init__(self, expert: LanguageModel, amateur: LanguageModel) -> None:
        self._expert, self._amateur = _Texts("expert", expert), _Texts("amateur", amateur)
        self._size, kept = max(self._expert.names) + 1, {*self._expert.names}
        self._columns = self._same_tokens()
        if self._columns is None:
            self._leave_out_unwritable()
            kept = {*self._expert.by_bytes.values(), *expert.stop_ids}
        self.shared = SharedVocabulary(self._size, tuple(sorted({*range(self._size)} - kept)))
        self._table = lru_cache(_CACHED_TABLES)(self._make_table)
        self._path = lru_cache(_CACHED_PATHS)(lambda text: self._amateur.encode([text])[0])

    def _same_tokens(self) -> Tensor | None:
        """The amateur's id of each expert id if both have the same tokens, special ones by name."""
        own, other = (
            {(i in one.of, one.of.get(i, name)): i for i, name in one.names.items()}
            for one in (self._expert, self._amateur)
        )
        if own.keys() != other.keys() or len(own) < len(self._expert.names):
            return None  # other tokens, or two that write the same bytes
        columns = torch.zeros(self._size, dtype=torch.long)
        columns[[*own.values()]] = torch.tensor([other[name] for name in own])
        return columns

    def _leave_out_unwritable(self) -> None:
        """Encodes the expert's tokens; finds only those from now on that the amateur can write."""
        texts, by_bytes = self._expert.ordered, self._expert.by_bytes
        self._paths = dict(zip(texts, self._amateur.encode(texts), strict=True))
        lost = [by_bytes.pop(text) for text, path in self._paths.items() if path is None]
        if len(lost) > _MAX_LOST_SHARE * len(texts):
            raise UserError(
                f"amateur.tokenizer=own: the amateur cannot write {len(lost):,} of the expert's "
                f"{len(texts):,} tokens, such as {self._expert.names[lost[0]]!r}: choose one that "
                "reads the same texts, as all with byte-level tokens do."
            )
        self._expert.ordered = sorted(by_bytes)
        paths = [path for path in self._paths.values() if path]
        self._branches = {path[:n] for path in paths for n in range(1, len(path))}

    def amateur_ids(self, token_ids: Sequence[int]) -> list[int]:
        """An answer in the amateur's tokens; the last one is not read."""
        if self._columns is not None:
            return self._columns[[*token_ids]].tolist()
        texts = [self._expert.of[i] for i in token_ids if i in self._expert.of]
        (ids,) = self._amateur.encode([b"".join(texts)])
        # None, for instance, where the text spells a special token of the amateur.
        return [*(ids or [i for text in texts for i in self._paths[text] or ()]), 0]

    def positions(self, answers: Iterable[Answer]) -> list[Position]:
        """All positions of answers, whose logits follow each other."""
        found, row = [], 0
        for prompt, own, token_ids in answers:
            ids, text = own[:-1], self._amateur.text(own[:-1])
            ends, starts = self._amateur.ends(ids), self._expert.ends(token_ids[:-1])
            for step, start in enumerate(starts):
                k = bisect_right(ends, start) - 1 if self._columns is None else step
                own_text = [*prompt, *ids[:k]], tuple(ids[k:]), text[ends[k] : start]
                found.append(Position(row + k, *own_text))
            row += len(own)
        return found

    def score(
        self, positions: Sequence[Position], reader: Reader, expert: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The amateur's log-probabilities, `(positions, shared)` as the expert's; KL in nats."""
        ids = self.shared.ids(expert.device)
        if self._columns is not None:
            columns, rows = self._columns.to(ids.device)[ids], [one.row for one in positions]
            amateur = contrast.log_probs(reader.logits[rows][:, columns])
            return amateur, contrast.kl_nats(expert, amateur)
        masses = self.push(positions, [ids[one].tolist() for one in mask], reader)[:, :-1]
        masses /= masses.sum(-1, keepdim=True)
        stops = torch.isin(ids, ids.new_tensor(self._expert.stop_ids))
        last = expert.masked_fill(~stops, -torch.inf).argmax(-1, keepdim=True)
        amateur = masses[:, ids].scatter_add(-1, last, masses[:, -1:])
        tiny = torch.finfo(torch.float32).tiny  # no path may reach a token: a finite log of 0
        p, log_amateur = expert.double().exp(), amateur.clamp_min(tiny).log()
        p_rest = p.masked_fill(mask, 0).sum(-1)
        rest = (amateur.masked_fill(mask, 0).sum(-1) + masses[:, -2]).clamp_min(tiny)
        kl = (p * (expert - log_amateur)).masked_fill(~mask, 0).sum(-1)
        kl += torch.xlogy(p_rest, p_rest) - p_rest * rest.log()
        return log_amateur.float(), kl.float()

    def push(
        self, positions: Sequence[Position], entries: Sequence[Iterable[int]], reader: Reader
    ) -> Tensor:
        """The masses of the expert's ids, of rest, of ends of turn and of contradictions to r.

        `(positions, size + 3)` fp64, each row sums to 1. `entries` are the ids of each support.
        """
        trees = [self._tree(one.pending, ids) for one, ids in zip(positions, entries, strict=True)]
        nodes = [(step, path) for step, tree in enumerate(trees) for path in tree]
        places: dict[tuple[int, Path], int] = {}  # rows of the logits, then of what is read below
        count, chains = len(reader.logits), []
        for step, path in reversed(nodes):  # a path before its parents
            row, prefix, following, _ = positions[step]
            new = [n for n in range(len(path) + 1) if (row, path[:n]) not in places]
            places |= {(row, path[:n]): row + n for n in new}
            if apart := [n for n in new if path[:n] != following[:n]]:
                places |= {(row, path[:n]): count + i for i, n in enumerate(apart)}
                chains.append(([*prefix, *path], [len(prefix) + n - 1 for n in apart]))
                count += len(apart)
        rows = [places[positions[step].row, path] for step, path in nodes]
        shares = reader.read(chains)[rows].double().softmax(-1)
        # A node's own distribution replaces the mass that its parent's gives it.
        place = {node: index for index, node in enumerate(nodes)}
        inner = [(node, place[step, path[:-1]]) for (step, path), node in place.items() if path]
        chosen = [parent for _, parent in inner], [nodes[node][1][-1] for node, _ in inner]
        weights = [1.0] * len(nodes)
        for (node, parent), share in zip(inner, shares[chosen].tolist(), strict=True):
            weights[node] = weights[parent] * share
        shares[chosen] = 0
        shares *= shares.new_tensor(weights)[:, None]
        by_table: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        for (step, path), node in place.items():
            text, pending = self._amateur.text(path), positions[step].pending
            by_table[pending[len(text) :], text[len(pending) :]].append(node)
        masses = shares.new_zeros(len(positions), self._size + 3)
        steps = torch.tensor([step for step, _ in nodes], device=shares.device)
        for key, members in by_table.items():
            table = self._table(*key, shares.shape[1]).to(shares.device)
            part = shares.new_zeros(len(members), masses.shape[1])
            masses.index_add_(0, steps[members], part.index_add_(1, table, shares[members]))
        return masses

    def _tree(self, pending: bytes, ids: Iterable[int]) -> list[Path]:
        """The paths after which the amateur's distribution is needed, each after its parent."""
        written = self._path(pending) or ()
        found = {written[:n] for n in range(len(written) + 1)}
        for text in (self._expert.of[i] for i in ids if i in self._expert.of):
            path = self._path(pending + text) or written + (self._paths[text] or ())
            found |= {path[:n] for n in range(1, len(path) + (self._paths[text] in self._branches))}
        return sorted(found, key=len)

    def _make_table(self, pending: bytes, written: bytes, rows: int) -> Tensor:
        """The bin of each amateur token, int64 `(rows,)`, as the next one of a path.

        `pending`: what is left of r; `written`: the path's text after r. One of them is empty.
        """
        rest, ended, contradiction = range(self._size, self._size + 3)
        expert, amateur = self._expert, self._amateur
        table = torch.full((rows,), contradiction)
        if written:
            table[[*amateur.names]] = expert.longest(written, rest)
            for text in sorted(expert.starting_with(written), key=len):
                longer = amateur.starting_with(text[len(written) :])
                table[[amateur.by_bytes[one] for one in longer]] = expert.by_bytes[text]
            return table
        if not pending:
            table[[*amateur.names]] = rest
            table[[*amateur.stop_ids]] = ended if expert.stop_ids else rest
        texts = [text for text in amateur.starting_with(pending) if text != pending]
        tails = [text[len(pending) :] for text in texts]
        for text, tail, path in zip(texts, tails, expert.encode(tails), strict=True):
            first = expert.of[path[0]] if path and tail not in expert.by_bytes else tail
            table[amateur.by_bytes[text]] = expert.longest(first, rest)
        return table
